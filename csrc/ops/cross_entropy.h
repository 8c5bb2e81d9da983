// loss = cross_entropy(input, target) for input (N, V) and class indices (N): check -> allocate ->
// call. The checked options of the loss are shared with linear_cross_entropy and mlp_cross_entropy.
#pragma once

#include <tuple>

#include "ops/checks.h"

namespace pymlp {

// The dtype arithmetic is done in, which is also that of losses and their gradients.
ScalarType accumulate_type(ScalarType dtype);

// The target, contiguous, after checking dtype, device, shape (N) and ids.
Tensor check_target(const Argument& target, const Argument& like, int64_t N, int64_t V,
                    int64_t ignore_index);

// The class weights, contiguous, after checking dtype, device and shape (V).
std::optional<Tensor> check_class_weight(const std::optional<Tensor>& weight, const Argument& like,
                                         int64_t V);

struct CrossEntropySettings {
  CrossEntropySettings(const char* op, int64_t ignore_index, int64_t reduction,
                       double label_smoothing, double z_loss = 0, double softcap = 0);

  int64_t ignore_index;
  Reduction reduction;
  double label_smoothing, z_loss, softcap;

  template <class S>
  CrossEntropyOptions<S> options(const S* class_weight) const {
    return {class_weight, ignore_index, reduction, label_smoothing, z_loss, softcap};
  }

  // (N) for Reduction::none, else a single number, for parameters like this one.
  Tensor empty_loss(int64_t N, const Tensor& like) const;

  // The gradient of that loss, contiguous, after checking that it is one.
  Tensor check_grad_output(const Tensor& grad_output, const Argument& like, int64_t N) const;
};

// Checked, contiguous arguments of both directions.
class CrossEntropyArguments {
 public:
  static constexpr const char* op = "cross_entropy";

  CrossEntropyArguments(const Tensor& input, const Tensor& target,
                        const std::optional<Tensor>& weight, const CrossEntropySettings& settings,
                        uintptr_t alignment);

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

template <class Backend>
std::tuple<Tensor, Tensor> cross_entropy_forward(const Tensor& input, const Tensor& target,
                                                 const std::optional<Tensor>& weight,
                                                 int64_t ignore_index, int64_t reduction,
                                                 double label_smoothing) {
  constexpr const char* op = CrossEntropyArguments::op;
  const CrossEntropySettings settings(op, ignore_index, reduction, label_smoothing);
  const CrossEntropyArguments in(input, target, weight, settings, Backend::row_alignment);
  const Tensor loss = settings.empty_loss(input.size(0), input);
  const Tensor softmax = empty({input.size(0), 2}, loss.scalar_type(), input.device());
  const Backend backend(op, input.device());
  with_storage_type(input.scalar_type(), [&](auto tag) {
    using S = decltype(tag);
    using A = Accumulate<S>;
    const auto& kernels = backend.template kernels<S>();
    const CrossEntropy<S> problem = in.problem<S>();
    backend.run(kernels.cross_entropy_forward, kernels.cross_entropy_forward_workspace(problem),
                problem, mutable_data<A>(loss), mutable_data<A>(softmax));
  });
  return {loss, softmax};
}

template <class Backend>
Tensor cross_entropy_backward(const Tensor& grad_output, const Tensor& input, const Tensor& target,
                              const Tensor& softmax, const std::optional<Tensor>& weight,
                              int64_t ignore_index, int64_t reduction, double label_smoothing) {
  constexpr const char* op = CrossEntropyArguments::op;
  const CrossEntropySettings settings(op, ignore_index, reduction, label_smoothing);
  const CrossEntropyArguments in(input, target, weight, settings, Backend::row_alignment);
  const Argument like{op, "input", input};
  const Tensor grad = settings.check_grad_output(grad_output, like, input.size(0));
  const Tensor saved = dense(softmax);
  check_dtype({op, "softmax", saved}, accumulate_type(input.scalar_type()), "the loss");
  check_device({op, "softmax", saved}, like);
  check_shape({op, "softmax", saved}, {input.size(0), 2});
  const Tensor dinput = empty({input.size(0), input.size(1)}, input.scalar_type(), input.device());
  const Backend backend(op, input.device());
  with_storage_type(input.scalar_type(), [&](auto tag) {
    using S = decltype(tag);
    using A = Accumulate<S>;
    const auto& kernels = backend.template kernels<S>();
    const CrossEntropy<S> problem = in.problem<S>();
    backend.run(kernels.cross_entropy_backward, kernels.cross_entropy_backward_workspace(problem),
                problem, data<A>(saved), data<A>(grad), mutable_data<S>(dinput));
  });
  return dinput;
}

}  // namespace pymlp
