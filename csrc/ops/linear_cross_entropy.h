// loss = cross_entropy(input linear_weightᵀ + linear_bias, target): check -> allocate -> call. The
// checked arguments of the output layer are shared with mlp_cross_entropy.
#pragma once

#include "ops/cross_entropy.h"

namespace pymlp {

// weight (V, H), bias (V) or none, both like another argument; contiguous after construction.
class LinearArguments {
 public:
  struct Names {
    const char* weight;
    const char* bias;
  };

  LinearArguments(const Tensor& weight, const std::optional<Tensor>& bias, int64_t H,
                  const Argument& like, const Names& names);

  int64_t V() const { return weight_.size(0); }

  template <class S>
  LinearCrossEntropy<S> problem(int64_t N, const S* input, const Tensor& target,
                                const CrossEntropyOptions<S>& options,
                                const Accumulate<S>* grad_output) const {
    return {N,           weight_.size(1), V(),        input, data<S>(weight_), data<S>(bias_),
            ids(target), options,         grad_output};
  }

 private:
  Tensor weight_;
  std::optional<Tensor> bias_;
};

struct LinearCrossEntropyTensors {
  const Tensor& input;
  const Tensor& linear_weight;
  const std::optional<Tensor>& linear_bias;
  const Tensor& target;
  const std::optional<Tensor>& weight;
};

struct LinearCrossEntropyResults {
  Tensor input, linear_weight, linear_bias;

  LinearCrossEntropyResults(int64_t N, int64_t H, int64_t V, const Tensor& like)
      : input(empty({N, H}, like.scalar_type(), like.device())),
        linear_weight(empty({V, H}, like.scalar_type(), like.device())),
        linear_bias(empty({V}, like.scalar_type(), like.device())) {}

  template <class S>
  LinearCrossEntropyGradients<S> pointers() const {
    return {mutable_data<S>(input), mutable_data<S>(linear_weight), mutable_data<S>(linear_bias)};
  }
};

// gradients: filled unless null.
template <class Backend>
Tensor linear_cross_entropy(const char* op, const LinearCrossEntropyTensors& in,
                            const CrossEntropySettings& settings,
                            const std::optional<Tensor>& grad_output,
                            std::optional<LinearCrossEntropyResults>* gradients) {
  const Argument like{op, "input", in.input};
  check_floating(like);
  check_dim(like, 2);
  const int64_t N = in.input.size(0), H = in.input.size(1);
  const LinearArguments linear(in.linear_weight, in.linear_bias, H, like,
                               {"linear_weight", "linear_bias"});
  const Tensor target =
      check_target({op, "target", in.target}, like, N, linear.V(), settings.ignore_index);
  const auto class_weight = check_class_weight(in.weight, like, linear.V());
  std::optional<Tensor> grad;
  if (grad_output) grad = settings.check_grad_output(*grad_output, like, N);
  const Tensor input = dense(in.input);
  const Tensor loss = settings.empty_loss(N, input);
  if (gradients) gradients->emplace(N, H, linear.V(), input);
  const Backend backend(op, input.device());
  with_storage_type(input.scalar_type(), [&](auto tag) {
    using S = decltype(tag);
    using A = Accumulate<S>;
    const auto& kernels = backend.template kernels<S>();
    const LinearCrossEntropy<S> problem = linear.problem<S>(
        N, data<S>(input), target, settings.options<S>(data<S>(class_weight)), data<A>(grad));
    LinearCrossEntropyGradients<S> out;
    if (gradients) out = (*gradients)->template pointers<S>();
    const LinearCrossEntropyGradients<S>* wanted = gradients ? &out : nullptr;
    backend.run(kernels.linear_cross_entropy,
                kernels.linear_cross_entropy_workspace(problem, gradients != nullptr), problem,
                mutable_data<A>(loss), wanted);
  });
  return loss;
}

template <class Backend>
Tensor linear_cross_entropy_forward(const Tensor& input, const Tensor& linear_weight,
                                    const std::optional<Tensor>& linear_bias, const Tensor& target,
                                    const std::optional<Tensor>& weight, int64_t ignore_index,
                                    int64_t reduction, double label_smoothing, double z_loss,
                                    double softcap) {
  constexpr const char* op = "linear_cross_entropy";
  const CrossEntropySettings settings(op, ignore_index, reduction, label_smoothing, z_loss,
                                      softcap);
  return linear_cross_entropy<Backend>(op, {input, linear_weight, linear_bias, target, weight},
                                       settings, std::nullopt, nullptr);
}

template <class Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor> linear_cross_entropy_forward_backward(
    const std::optional<Tensor>& grad_output, const Tensor& input, const Tensor& linear_weight,
    const std::optional<Tensor>& linear_bias, const Tensor& target,
    const std::optional<Tensor>& weight, int64_t ignore_index, int64_t reduction,
    double label_smoothing, double z_loss, double softcap) {
  constexpr const char* op = "linear_cross_entropy";
  const CrossEntropySettings settings(op, ignore_index, reduction, label_smoothing, z_loss,
                                      softcap);
  std::optional<LinearCrossEntropyResults> d;
  const Tensor loss = linear_cross_entropy<Backend>(
      op, {input, linear_weight, linear_bias, target, weight}, settings, grad_output, &d);
  return {loss, d->input, d->linear_weight, d->linear_bias};
}

}  // namespace pymlp
