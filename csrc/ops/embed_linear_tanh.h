// hidden = tanh(concat(embedding[tokens]) weightᵀ + bias): check -> allocate -> call. The checked
// arguments of the hidden layer are shared with mlp_cross_entropy.
#pragma once

#include <tuple>
#include <vector>

#include "ops/checks.h"

namespace pymlp {

// The names of these arguments in the op's messages.
struct EmbedLinearTanhNames {
  const char* weight = "weight";
  const char* bias = "bias";
};

class EmbedLinearTanhArguments {
 public:
  struct Tensors {
    const Tensor& tokens;               // (..., T)
    const Tensor& embedding;            // (V, E)
    const Tensor& weight;               // (H, T*E)
    const std::optional<Tensor>& bias;  // (H)
  };

  // Throws, naming op and argument, unless shapes, dtypes, devices and ids fit each other.
  EmbedLinearTanhArguments(const char* op, const Tensors& in, const EmbedLinearTanhNames& names);

  int64_t examples() const { return tokens_.numel() / T_; }

  template <class S>
  EmbedLinearTanh<S> problem() const {
    return {examples(),      T_,           embedding_.size(0),  embedding_.size(1),
            weight_.size(0), ids(tokens_), data<S>(embedding_), data<S>(weight_),
            data<S>(bias_)};
  }

 private:
  int64_t T_;
  Tensor tokens_, embedding_, weight_;
  std::optional<Tensor> bias_;
};

template <class Backend>
Tensor embed_linear_tanh_forward(const Tensor& tokens, const Tensor& embedding,
                                 const Tensor& weight, const std::optional<Tensor>& bias) {
  constexpr const char* op = "embed_linear_tanh";
  const EmbedLinearTanhArguments in(op, {tokens, embedding, weight, bias}, EmbedLinearTanhNames{});
  std::vector<int64_t> shape(tokens.sizes().begin(), tokens.sizes().end());
  shape.back() = weight.size(0);
  const Tensor hidden = empty(shape.data(), static_cast<int64_t>(shape.size()),
                              embedding.scalar_type(), embedding.device());
  const Backend backend(op, embedding.device());
  with_storage_type(embedding.scalar_type(), [&](auto tag) {
    using S = decltype(tag);
    const auto& kernels = backend.template kernels<S>();
    const EmbedLinearTanh<S> problem = in.problem<S>();
    backend.run(kernels.embed_linear_tanh_forward,
                kernels.embed_linear_tanh_forward_workspace(problem), problem,
                mutable_data<S>(hidden));
  });
  return hidden;
}

template <class Backend>
std::tuple<Tensor, Tensor, Tensor> embed_linear_tanh_backward(const Tensor& tokens,
                                                              const Tensor& embedding,
                                                              const Tensor& weight,
                                                              const Tensor& hidden,
                                                              const Tensor& dhidden) {
  constexpr const char* op = "embed_linear_tanh";
  const EmbedLinearTanhArguments in(op, {tokens, embedding, weight, std::nullopt},
                                    EmbedLinearTanhNames{});
  const Argument like{op, "embedding", embedding};
  check_like({op, "hidden", hidden}, like);
  check_like({op, "dhidden", dhidden}, like);
  const Tensor y = dense(hidden), dy = dense(dhidden);
  check(y.numel() == in.examples() * weight.size(0) && dy.numel() == y.numel(), "pymlp.", op,
        ": hidden and dhidden must hold ", weight.size(0), " numbers for each of ", in.examples(),
        " examples, got ", y.numel(), " and ", dy.numel());
  const ScalarType dtype = embedding.scalar_type();
  const Device device = embedding.device();
  const Tensor dembedding = empty({embedding.size(0), embedding.size(1)}, dtype, device);
  const Tensor dweight = empty({weight.size(0), weight.size(1)}, dtype, device);
  const Tensor dbias = empty({weight.size(0)}, dtype, device);
  const Backend backend(op, device);
  with_storage_type(dtype, [&](auto tag) {
    using S = decltype(tag);
    const auto& kernels = backend.template kernels<S>();
    const EmbedLinearTanh<S> problem = in.problem<S>();
    const EmbedLinearTanhGradients<S> gradients{mutable_data<S>(dembedding),
                                                mutable_data<S>(dweight), mutable_data<S>(dbias)};
    backend.run(kernels.embed_linear_tanh_backward,
                kernels.embed_linear_tanh_backward_workspace(problem), problem, data<S>(y),
                data<S>(dy), gradients);
  });
  return {dembedding, dweight, dbias};
}

}  // namespace pymlp
