// The whole model and its loss in one op: check -> allocate -> call.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "ops/embed_linear_tanh.h"
#include "ops/linear_cross_entropy.h"

namespace pymlp {
namespace {

constexpr const char* op = "mlp_cross_entropy";

struct MlpTensors {
  const Tensor& tokens;   // (N, T)
  const Tensor& targets;  // (N)
  const Tensor& embedding;
  const Tensor& hidden_weight;
  const std::optional<Tensor>& hidden_bias;
  const Tensor& output_weight;
  const std::optional<Tensor>& output_bias;
};

struct Gradients {
  Tensor embedding, hidden_weight, hidden_bias, output_weight, output_bias;

  explicit Gradients(const MlpTensors& in)
      : embedding(empty({in.embedding.size(0), in.embedding.size(1)}, in.embedding.scalar_type())),
        hidden_weight(empty({in.hidden_weight.size(0), in.hidden_weight.size(1)},
                            in.embedding.scalar_type())),
        hidden_bias(empty({in.hidden_weight.size(0)}, in.embedding.scalar_type())),
        output_weight(empty({in.output_weight.size(0), in.output_weight.size(1)},
                            in.embedding.scalar_type())),
        output_bias(empty({in.output_weight.size(0)}, in.embedding.scalar_type())) {}

  template <class S>
  MlpCrossEntropyGradients<S> pointers() const {
    return {
        {mutable_data<S>(embedding), mutable_data<S>(hidden_weight), mutable_data<S>(hidden_bias)},
        {nullptr, mutable_data<S>(output_weight), mutable_data<S>(output_bias)}};
  }
};

// gradients: filled unless null.
Tensor mlp_cross_entropy(const MlpTensors& in, const CrossEntropySettings& settings,
                         const std::optional<Tensor>& grad_output,
                         std::optional<Gradients>* gradients) {
  check(settings.reduction != Reduction::none, "pymlp.", op, ": reduction must be mean or sum");
  check_dim({op, "tokens", in.tokens}, 2);
  const EmbedLinearTanhArguments hidden(op,
                                        {in.tokens, in.embedding, in.hidden_weight, in.hidden_bias},
                                        {"hidden_weight", "hidden_bias"});
  const ScalarType dtype = in.embedding.scalar_type();
  const LinearArguments output(op, in.output_weight, in.output_bias, in.hidden_weight.size(0),
                               dtype, {"output_weight", "output_bias", "embedding"});
  const Tensor targets = check_target({op, "targets", in.targets}, in.tokens.size(0), output.V(),
                                      settings.ignore_index);
  std::optional<Tensor> grad;
  if (grad_output) grad = settings.check_grad_output(op, *grad_output, in.tokens.size(0), dtype);
  const Tensor loss = settings.empty_loss(in.tokens.size(0), accumulate_type(dtype));
  if (gradients) gradients->emplace(in);
  with_storage_type(dtype, [&](auto tag) {
    using S = decltype(tag);
    using A = Accumulate<S>;
    const Kernels<S>& kernels = active_kernels().of<S>();
    const MlpCrossEntropy<S> problem{
        hidden.problem<S>(), output.problem<S>(hidden.examples(), nullptr, targets,
                                               settings.options<S>(nullptr), data<A>(grad))};
    MlpCrossEntropyGradients<S> out;
    if (gradients) out = (*gradients)->pointers<S>();
    Scratch scratch(kernels.mlp_cross_entropy_workspace(problem, gradients != nullptr));
    kernels.mlp_cross_entropy(problem, mutable_data<A>(loss), gradients ? &out : nullptr,
                              scratch.get(), TorchParallel());
  });
  return loss;
}

Tensor mlp_cross_entropy_forward(const Tensor& tokens, const Tensor& targets,
                                 const Tensor& embedding, const Tensor& hidden_weight,
                                 const std::optional<Tensor>& hidden_bias,
                                 const Tensor& output_weight,
                                 const std::optional<Tensor>& output_bias, int64_t ignore_index,
                                 int64_t reduction, double label_smoothing) {
  return mlp_cross_entropy(
      {tokens, targets, embedding, hidden_weight, hidden_bias, output_weight, output_bias},
      CrossEntropySettings(op, ignore_index, reduction, label_smoothing), std::nullopt, nullptr);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> mlp_cross_entropy_forward_backward(
    const std::optional<Tensor>& grad_output, const Tensor& tokens, const Tensor& targets,
    const Tensor& embedding, const Tensor& hidden_weight, const std::optional<Tensor>& hidden_bias,
    const Tensor& output_weight, const std::optional<Tensor>& output_bias, int64_t ignore_index,
    int64_t reduction, double label_smoothing) {
  const MlpTensors in{tokens,      targets,       embedding,  hidden_weight,
                      hidden_bias, output_weight, output_bias};
  std::optional<Gradients> d;
  const Tensor loss = mlp_cross_entropy(
      in, CrossEntropySettings(op, ignore_index, reduction, label_smoothing), grad_output, &d);
  return {loss, d->embedding, d->hidden_weight, d->hidden_bias, d->output_weight, d->output_bias};
}

// Where the five parameters lie in a vector of all of them.
struct FlatLayout {
  int64_t hidden_weight, hidden_bias, output_weight, output_bias, size;

  FlatLayout(int64_t V, int64_t T, int64_t E, int64_t H)
      : hidden_weight(V * E),
        hidden_bias(hidden_weight + H * T * E),
        output_weight(hidden_bias + H),
        output_bias(output_weight + V * H),
        size(output_bias + V) {}
};

std::tuple<Tensor, Tensor> mlp_cross_entropy_flat(const Tensor& tokens, const Tensor& targets,
                                                  const Tensor& parameters, int64_t V, int64_t E,
                                                  int64_t H) {
  constexpr const char* op = "mlp_cross_entropy_flat";
  check_integer({op, "tokens", tokens});
  check_dim({op, "tokens", tokens}, 2);
  check_floating({op, "parameters", parameters});
  check(V > 0 && E > 0 && H > 0 && tokens.size(1) > 0, "pymlp.", op, ": sizes must be positive");
  const int64_t N = tokens.size(0), T = tokens.size(1);
  const FlatLayout layout(V, T, E, H);
  check_shape({op, "parameters", parameters}, {layout.size});
  const Tensor context = dense(tokens), flat = dense(parameters);
  check_ids({op, "tokens", context}, V);
  const CrossEntropySettings settings(op, -100, static_cast<int64_t>(Reduction::mean), 0);
  const Tensor target = check_target({op, "targets", targets}, N, V, settings.ignore_index);
  const ScalarType dtype = parameters.scalar_type();
  const Tensor loss = settings.empty_loss(N, accumulate_type(dtype));
  const Tensor gradients = empty({layout.size}, dtype);
  with_storage_type(dtype, [&](auto tag) {
    using S = decltype(tag);
    const Kernels<S>& kernels = active_kernels().of<S>();
    const S* p = data<S>(flat);
    S* d = mutable_data<S>(gradients);
    const MlpCrossEntropy<S> problem{
        {N, T, V, E, H, ids(context), p, p + layout.hidden_weight, p + layout.hidden_bias},
        {N, H, V, nullptr, p + layout.output_weight, p + layout.output_bias, ids(target),
         settings.options<S>(nullptr), nullptr}};
    const MlpCrossEntropyGradients<S> out{
        {d, d + layout.hidden_weight, d + layout.hidden_bias},
        {nullptr, d + layout.output_weight, d + layout.output_bias}};
    Scratch scratch(kernels.mlp_cross_entropy_workspace(problem, true));
    kernels.mlp_cross_entropy(problem, mutable_data<Accumulate<S>>(loss), &out, scratch.get(),
                              TorchParallel());
  });
  return {loss, gradients};
}

}  // namespace
}  // namespace pymlp

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) {
  m.impl("mlp_cross_entropy_forward", TORCH_BOX(&pymlp::mlp_cross_entropy_forward));
  m.impl("mlp_cross_entropy_flat", TORCH_BOX(&pymlp::mlp_cross_entropy_flat));
  m.impl("mlp_cross_entropy_forward_backward",
         TORCH_BOX(&pymlp::mlp_cross_entropy_forward_backward));
}
