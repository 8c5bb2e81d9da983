// The whole model and its loss in one op: check -> allocate -> call.
#pragma once

#include "ops/embed_linear_tanh.h"
#include "ops/linear_cross_entropy.h"

namespace pymlp {

struct MlpTensors {
  const Tensor& tokens;   // (N, T)
  const Tensor& targets;  // (N)
  const Tensor& embedding;
  const Tensor& hidden_weight;
  const std::optional<Tensor>& hidden_bias;
  const Tensor& output_weight;
  const std::optional<Tensor>& output_bias;
};

struct MlpResults {
  Tensor embedding, hidden_weight, hidden_bias, output_weight, output_bias;

  explicit MlpResults(const MlpTensors& in)
      : embedding(like(in.embedding)),
        hidden_weight(like(in.hidden_weight)),
        hidden_bias(rows_of(in.hidden_weight)),
        output_weight(like(in.output_weight)),
        output_bias(rows_of(in.output_weight)) {}

  template <class S>
  MlpCrossEntropyGradients<S> pointers() const {
    return {
        {mutable_data<S>(embedding), mutable_data<S>(hidden_weight), mutable_data<S>(hidden_bias)},
        {nullptr, mutable_data<S>(output_weight), mutable_data<S>(output_bias)}};
  }

 private:
  static Tensor like(const Tensor& matrix) {
    return empty({matrix.size(0), matrix.size(1)}, matrix.scalar_type(), matrix.device());
  }
  static Tensor rows_of(const Tensor& matrix) {
    return empty({matrix.size(0)}, matrix.scalar_type(), matrix.device());
  }
};

// gradients: filled unless null.
template <class Backend>
Tensor mlp_cross_entropy(const char* op, const MlpTensors& in, const CrossEntropySettings& settings,
                         const std::optional<Tensor>& grad_output,
                         std::optional<MlpResults>* gradients) {
  check(settings.reduction != Reduction::none, "pymlp.", op, ": reduction must be mean or sum");
  check_dim({op, "tokens", in.tokens}, 2);
  const EmbedLinearTanhArguments hidden(op,
                                        {in.tokens, in.embedding, in.hidden_weight, in.hidden_bias},
                                        {"hidden_weight", "hidden_bias"});
  const Argument like{op, "embedding", in.embedding};
  const int64_t N = in.tokens.size(0);
  const LinearArguments output(in.output_weight, in.output_bias, in.hidden_weight.size(0), like,
                               {"output_weight", "output_bias"});
  const Tensor targets =
      check_target({op, "targets", in.targets}, like, N, output.V(), settings.ignore_index);
  std::optional<Tensor> grad;
  if (grad_output) grad = settings.check_grad_output(*grad_output, like, N);
  const Tensor loss = settings.empty_loss(N, in.embedding);
  if (gradients) gradients->emplace(in);
  const Backend backend(op, in.embedding.device());
  with_storage_type(in.embedding.scalar_type(), [&](auto tag) {
    using S = decltype(tag);
    using A = Accumulate<S>;
    const auto& kernels = backend.template kernels<S>();
    const MlpCrossEntropy<S> problem{
        hidden.problem<S>(),
        output.problem<S>(N, nullptr, targets, settings.options<S>(nullptr), data<A>(grad))};
    MlpCrossEntropyGradients<S> out;
    if (gradients) out = (*gradients)->template pointers<S>();
    const MlpCrossEntropyGradients<S>* wanted = gradients ? &out : nullptr;
    backend.run(kernels.mlp_cross_entropy,
                kernels.mlp_cross_entropy_workspace(problem, gradients != nullptr), problem,
                mutable_data<A>(loss), wanted);
  });
  return loss;
}

template <class Backend>
Tensor mlp_cross_entropy_forward(const Tensor& tokens, const Tensor& targets,
                                 const Tensor& embedding, const Tensor& hidden_weight,
                                 const std::optional<Tensor>& hidden_bias,
                                 const Tensor& output_weight,
                                 const std::optional<Tensor>& output_bias, int64_t ignore_index,
                                 int64_t reduction, double label_smoothing) {
  constexpr const char* op = "mlp_cross_entropy";
  return mlp_cross_entropy<Backend>(
      op, {tokens, targets, embedding, hidden_weight, hidden_bias, output_weight, output_bias},
      CrossEntropySettings(op, ignore_index, reduction, label_smoothing), std::nullopt, nullptr);
}

template <class Backend>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> mlp_cross_entropy_forward_backward(
    const std::optional<Tensor>& grad_output, const Tensor& tokens, const Tensor& targets,
    const Tensor& embedding, const Tensor& hidden_weight, const std::optional<Tensor>& hidden_bias,
    const Tensor& output_weight, const std::optional<Tensor>& output_bias, int64_t ignore_index,
    int64_t reduction, double label_smoothing) {
  constexpr const char* op = "mlp_cross_entropy";
  std::optional<MlpResults> d;
  const Tensor loss = mlp_cross_entropy<Backend>(
      op, {tokens, targets, embedding, hidden_weight, hidden_bias, output_weight, output_bias},
      CrossEntropySettings(op, ignore_index, reduction, label_smoothing), grad_output, &d);
  return {loss, d->embedding, d->hidden_weight, d->hidden_bias, d->output_weight, d->output_bias};
}

}  // namespace pymlp
