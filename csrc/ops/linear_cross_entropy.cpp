// loss = cross_entropy(input linear_weightᵀ + linear_bias, target): check -> allocate -> call.
#include "ops/linear_cross_entropy.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

namespace pymlp {
namespace {

constexpr const char* op = "linear_cross_entropy";

struct LinearCrossEntropyTensors {
  const Tensor& input;
  const Tensor& linear_weight;
  const std::optional<Tensor>& linear_bias;
  const Tensor& target;
  const std::optional<Tensor>& weight;
};

struct Gradients {
  Tensor input, linear_weight, linear_bias;

  Gradients(int64_t N, int64_t H, int64_t V, ScalarType dtype)
      : input(empty({N, H}, dtype)),
        linear_weight(empty({V, H}, dtype)),
        linear_bias(empty({V}, dtype)) {}

  template <class S>
  LinearCrossEntropyGradients<S> pointers() const {
    return {mutable_data<S>(input), mutable_data<S>(linear_weight), mutable_data<S>(linear_bias)};
  }
};

// gradients: filled unless null.
Tensor linear_cross_entropy(const LinearCrossEntropyTensors& in,
                            const CrossEntropySettings& settings,
                            const std::optional<Tensor>& grad_output,
                            std::optional<Gradients>* gradients) {
  check_floating({op, "input", in.input});
  check_dim({op, "input", in.input}, 2);
  const int64_t N = in.input.size(0), H = in.input.size(1);
  const ScalarType dtype = in.input.scalar_type();
  const LinearArguments linear(op, in.linear_weight, in.linear_bias, H, dtype,
                               {"linear_weight", "linear_bias", "input"});
  const Tensor target =
      check_target({op, "target", in.target}, N, linear.V(), settings.ignore_index);
  const auto class_weight = check_class_weight(op, in.weight, dtype, linear.V());
  std::optional<Tensor> grad;
  if (grad_output) grad = settings.check_grad_output(op, *grad_output, N, dtype);
  const Tensor input = dense(in.input);
  const Tensor loss = settings.empty_loss(N, accumulate_type(dtype));
  if (gradients) gradients->emplace(N, H, linear.V(), dtype);
  with_storage_type(dtype, [&](auto tag) {
    using S = decltype(tag);
    using A = Accumulate<S>;
    const Kernels<S>& kernels = active_kernels().of<S>();
    const LinearCrossEntropy<S> problem = linear.problem<S>(
        N, data<S>(input), target, settings.options<S>(data<S>(class_weight)), data<A>(grad));
    LinearCrossEntropyGradients<S> out;
    if (gradients) out = (*gradients)->pointers<S>();
    Scratch scratch(kernels.linear_cross_entropy_workspace(problem, gradients != nullptr));
    kernels.linear_cross_entropy(problem, mutable_data<A>(loss), gradients ? &out : nullptr,
                                 scratch.get(), TorchParallel());
  });
  return loss;
}

Tensor linear_cross_entropy_forward(const Tensor& input, const Tensor& linear_weight,
                                    const std::optional<Tensor>& linear_bias, const Tensor& target,
                                    const std::optional<Tensor>& weight, int64_t ignore_index,
                                    int64_t reduction, double label_smoothing, double z_loss,
                                    double softcap) {
  const CrossEntropySettings settings(op, ignore_index, reduction, label_smoothing, z_loss,
                                      softcap);
  return linear_cross_entropy({input, linear_weight, linear_bias, target, weight}, settings,
                              std::nullopt, nullptr);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> linear_cross_entropy_forward_backward(
    const std::optional<Tensor>& grad_output, const Tensor& input, const Tensor& linear_weight,
    const std::optional<Tensor>& linear_bias, const Tensor& target,
    const std::optional<Tensor>& weight, int64_t ignore_index, int64_t reduction,
    double label_smoothing, double z_loss, double softcap) {
  const CrossEntropySettings settings(op, ignore_index, reduction, label_smoothing, z_loss,
                                      softcap);
  std::optional<Gradients> d;
  const Tensor loss = linear_cross_entropy({input, linear_weight, linear_bias, target, weight},
                                           settings, grad_output, &d);
  return {loss, d->input, d->linear_weight, d->linear_bias};
}

}  // namespace

LinearArguments::LinearArguments(const char* op, const Tensor& weight,
                                 const std::optional<Tensor>& bias, int64_t H, ScalarType dtype,
                                 const Names& names) {
  check_dtype({op, names.weight, weight}, dtype, names.like);
  check_dim({op, names.weight, weight}, 2);
  check_shape({op, names.weight, weight}, {weight.size(0), H});
  if (bias) {
    check_dtype({op, names.bias, *bias}, dtype, names.like);
    check_shape({op, names.bias, *bias}, {weight.size(0)});
    bias_ = dense(*bias);
  }
  weight_ = dense(weight);
}

}  // namespace pymlp

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) {
  m.impl("linear_cross_entropy_forward", TORCH_BOX(&pymlp::linear_cross_entropy_forward));
  m.impl("linear_cross_entropy_forward_backward",
         TORCH_BOX(&pymlp::linear_cross_entropy_forward_backward));
}
