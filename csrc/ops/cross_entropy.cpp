#include "ops/cross_entropy.h"

namespace pymlp {

ScalarType accumulate_type(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

Tensor check_target(const Argument& target, const Argument& like, int64_t N, int64_t V,
                    int64_t ignore_index) {
  check_integer(target);
  check_device(target, like);
  check_shape(target, {N});
  const Tensor result = dense(target.tensor);
  check_ids({target.op, target.name, result}, V, ignore_index);
  return result;
}

std::optional<Tensor> check_class_weight(const std::optional<Tensor>& weight, const Argument& like,
                                         int64_t V) {
  if (!weight) return std::nullopt;
  const Argument argument{like.op, "weight", *weight};
  check_like(argument, like);
  check_shape(argument, {V});
  return dense(*weight);
}

CrossEntropySettings::CrossEntropySettings(const char* op, int64_t ignore_index, int64_t reduction,
                                           double label_smoothing, double z_loss, double softcap)
    : ignore_index(ignore_index),
      reduction(check_reduction(op, reduction)),
      label_smoothing(label_smoothing),
      z_loss(z_loss),
      softcap(softcap) {
  check(label_smoothing >= 0 && label_smoothing <= 1, "pymlp.", op,
        ": label_smoothing must be between 0 and 1, got ", label_smoothing);
}

Tensor CrossEntropySettings::empty_loss(int64_t N, const Tensor& like) const {
  const ScalarType dtype = accumulate_type(like.scalar_type());
  return reduction == Reduction::none ? empty({N}, dtype, like.device())
                                      : empty({}, dtype, like.device());
}

Tensor CrossEntropySettings::check_grad_output(const Tensor& grad_output, const Argument& like,
                                               int64_t N) const {
  const Argument argument{like.op, "grad_output", grad_output};
  check_dtype(argument, accumulate_type(like.tensor.scalar_type()), "the loss");
  check_device(argument, like);
  if (reduction == Reduction::none) {
    check_shape(argument, {N});
  } else {
    check_shape(argument, {});
  }
  return dense(grad_output);
}

CrossEntropyArguments::CrossEntropyArguments(const Tensor& input, const Tensor& target,
                                             const std::optional<Tensor>& weight,
                                             const CrossEntropySettings& settings,
                                             uintptr_t alignment)
    : settings_(settings) {
  const Argument like{op, "input", input};
  check_floating(like);
  check_dim(like, 2);
  target_ = check_target({op, "target", target}, like, input.size(0), input.size(1),
                         settings.ignore_index);
  weight_ = check_class_weight(weight, like, input.size(1));
  input_ = dense(input, alignment);
}

}  // namespace pymlp
