// loss = cross_entropy(input, target) for input (N, V) and class indices (N): check -> allocate ->
// call.
#include "ops/cross_entropy.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

namespace pymlp {
namespace {

constexpr const char* op = "cross_entropy";

// Checked, contiguous arguments of both directions.
class CrossEntropyArguments {
 public:
  CrossEntropyArguments(const Tensor& input, const Tensor& target,
                        const std::optional<Tensor>& weight, const CrossEntropySettings& settings)
      : settings_(settings) {
    check_floating({op, "input", input});
    check_dim({op, "input", input}, 2);
    target_ =
        check_target({op, "target", target}, input.size(0), input.size(1), settings.ignore_index);
    weight_ = check_class_weight(op, weight, input.scalar_type(), input.size(1));
    input_ = dense(input);
  }

  template <class S>
  CrossEntropy<S> problem() const {
    return {input_.size(0), input_.size(1), data<S>(input_), ids(target_),
            settings_.options<S>(data<S>(weight_))};
  }

 private:
  const CrossEntropySettings settings_;
  Tensor input_, target_;
  std::optional<Tensor> weight_;
};

std::tuple<Tensor, Tensor> cross_entropy_forward(const Tensor& input, const Tensor& target,
                                                 const std::optional<Tensor>& weight,
                                                 int64_t ignore_index, int64_t reduction,
                                                 double label_smoothing) {
  const CrossEntropySettings settings(op, ignore_index, reduction, label_smoothing);
  const CrossEntropyArguments in(input, target, weight, settings);
  const ScalarType dtype = accumulate_type(input.scalar_type());
  const Tensor loss = settings.empty_loss(input.size(0), dtype);
  const Tensor softmax = empty({input.size(0), 2}, dtype);
  with_storage_type(input.scalar_type(), [&](auto tag) {
    using S = decltype(tag);
    using A = Accumulate<S>;
    const Kernels<S>& kernels = active_kernels().of<S>();
    const CrossEntropy<S> problem = in.problem<S>();
    Scratch scratch(kernels.cross_entropy_forward_workspace(problem));
    kernels.cross_entropy_forward(problem, mutable_data<A>(loss), mutable_data<A>(softmax),
                                  scratch.get(), TorchParallel());
  });
  return {loss, softmax};
}

Tensor cross_entropy_backward(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                              const Tensor& softmax, const std::optional<Tensor>& weight,
                              int64_t ignore_index, int64_t reduction, double label_smoothing) {
  const CrossEntropySettings settings(op, ignore_index, reduction, label_smoothing);
  const CrossEntropyArguments in(input, target, weight, settings);
  const Tensor grad =
      settings.check_grad_output(op, grad_output, input.size(0), input.scalar_type());
  const Tensor saved = dense(softmax);
  check_dtype({op, "softmax", saved}, accumulate_type(input.scalar_type()), "the loss");
  check_shape({op, "softmax", saved}, {input.size(0), 2});
  const Tensor dinput = empty({input.size(0), input.size(1)}, input.scalar_type());
  with_storage_type(input.scalar_type(), [&](auto tag) {
    using S = decltype(tag);
    using A = Accumulate<S>;
    const Kernels<S>& kernels = active_kernels().of<S>();
    const CrossEntropy<S> problem = in.problem<S>();
    Scratch scratch(kernels.cross_entropy_backward_workspace(problem));
    kernels.cross_entropy_backward(problem, data<A>(saved), data<A>(grad), mutable_data<S>(dinput),
                                   scratch.get(), TorchParallel());
  });
  return dinput;
}

}  // namespace

ScalarType accumulate_type(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

Tensor check_target(const Argument& target, int64_t N, int64_t V, int64_t ignore_index) {
  check_integer(target);
  check_shape(target, {N});
  const Tensor result = dense(target.tensor);
  check_ids({target.op, target.name, result}, V, ignore_index);
  return result;
}

std::optional<Tensor> check_class_weight(const char* op, const std::optional<Tensor>& weight,
                                         ScalarType dtype, int64_t V) {
  if (!weight) return std::nullopt;
  check_dtype({op, "weight", *weight}, dtype, "input");
  check_shape({op, "weight", *weight}, {V});
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

Tensor CrossEntropySettings::empty_loss(int64_t N, ScalarType dtype) const {
  return reduction == Reduction::none ? empty({N}, dtype) : empty({}, dtype);
}

Tensor CrossEntropySettings::check_grad_output(const char* op, const Tensor& grad_output, int64_t N,
                                               ScalarType dtype) const {
  const Argument argument{op, "grad_output", grad_output};
  check_dtype(argument, accumulate_type(dtype), "the loss");
  if (reduction == Reduction::none) {
    check_shape(argument, {N});
  } else {
    check_shape(argument, {});
  }
  return dense(grad_output);
}

}  // namespace pymlp

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) {
  m.impl("cross_entropy_forward", TORCH_BOX(&pymlp::cross_entropy_forward));
  m.impl("cross_entropy_backward", TORCH_BOX(&pymlp::cross_entropy_backward));
}
