// hidden = tanh(concat(embedding[tokens]) weightᵀ + bias): check -> allocate -> call.
#include "ops/embed_linear_tanh.h"

#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

namespace pymlp {
namespace {

constexpr const char* op = "embed_linear_tanh";

Tensor embed_linear_tanh_forward(const Tensor& tokens, const Tensor& embedding,
                                 const Tensor& weight, const std::optional<Tensor>& bias) {
  const EmbedLinearTanhArguments in(op, {tokens, embedding, weight, bias}, EmbedLinearTanhNames{});
  std::vector<int64_t> shape(tokens.sizes().begin(), tokens.sizes().end());
  shape.back() = weight.size(0);
  const Tensor hidden =
      empty(shape.data(), static_cast<int64_t>(shape.size()), embedding.scalar_type());
  with_storage_type(embedding.scalar_type(), [&](auto tag) {
    using S = decltype(tag);
    const Kernels<S>& kernels = active_kernels().of<S>();
    const EmbedLinearTanh<S> problem = in.problem<S>();
    Scratch scratch(kernels.embed_linear_tanh_forward_workspace(problem));
    kernels.embed_linear_tanh_forward(problem, mutable_data<S>(hidden), scratch.get(),
                                      TorchParallel());
  });
  return hidden;
}

std::tuple<Tensor, Tensor, Tensor> embed_linear_tanh_backward(const Tensor& tokens,
                                                              const Tensor& embedding,
                                                              const Tensor& weight,
                                                              const Tensor& hidden,
                                                              const Tensor& dhidden) {
  const EmbedLinearTanhArguments in(op, {tokens, embedding, weight, std::nullopt},
                                    EmbedLinearTanhNames{});
  const ScalarType dtype = embedding.scalar_type();
  check_dtype({op, "hidden", hidden}, dtype, "embedding");
  check_dtype({op, "dhidden", dhidden}, dtype, "embedding");
  const Tensor y = dense(hidden), dy = dense(dhidden);
  check(y.numel() == in.examples() * weight.size(0) && dy.numel() == y.numel(), "pymlp.", op,
        ": hidden and dhidden must hold ", weight.size(0), " numbers for each of ", in.examples(),
        " examples, got ", y.numel(), " and ", dy.numel());
  const Tensor dembedding = empty({embedding.size(0), embedding.size(1)}, dtype);
  const Tensor dweight = empty({weight.size(0), weight.size(1)}, dtype);
  const Tensor dbias = empty({weight.size(0)}, dtype);
  with_storage_type(dtype, [&](auto tag) {
    using S = decltype(tag);
    const Kernels<S>& kernels = active_kernels().of<S>();
    const EmbedLinearTanh<S> problem = in.problem<S>();
    const EmbedLinearTanhGradients<S> gradients{mutable_data<S>(dembedding),
                                                mutable_data<S>(dweight), mutable_data<S>(dbias)};
    Scratch scratch(kernels.embed_linear_tanh_backward_workspace(problem));
    kernels.embed_linear_tanh_backward(problem, data<S>(y), data<S>(dy), gradients, scratch.get(),
                                       TorchParallel());
  });
  return {dembedding, dweight, dbias};
}

}  // namespace

EmbedLinearTanhArguments::EmbedLinearTanhArguments(const char* op, const Tensors& in,
                                                   const EmbedLinearTanhNames& names) {
  check_integer({op, "tokens", in.tokens});
  check_floating({op, "embedding", in.embedding});
  check_dim({op, "embedding", in.embedding}, 2);
  check_dtype({op, names.weight, in.weight}, in.embedding.scalar_type(), "embedding");
  check_dim({op, names.weight, in.weight}, 2);
  check(in.tokens.dim() >= 1, "pymlp.", op,
        ": tokens must have shape (..., block_size), got a single number");
  T_ = in.tokens.size(-1);
  check(T_ >= 1, "pymlp.", op, ": tokens must have a last dimension of at least 1, got 0");
  const int64_t H = in.weight.size(0);
  check_shape({op, names.weight, in.weight}, {H, T_ * in.embedding.size(1)});
  if (in.bias) {
    check_dtype({op, names.bias, *in.bias}, in.embedding.scalar_type(), "embedding");
    check_shape({op, names.bias, *in.bias}, {H});
    bias_ = dense(*in.bias);
  }
  tokens_ = dense(in.tokens);
  embedding_ = dense(in.embedding);
  weight_ = dense(in.weight);
  check_ids({op, "tokens", tokens_}, embedding_.size(0));
}

}  // namespace pymlp

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) {
  m.impl("embed_linear_tanh_forward", TORCH_BOX(&pymlp::embed_linear_tanh_forward));
  m.impl("embed_linear_tanh_backward", TORCH_BOX(&pymlp::embed_linear_tanh_backward));
}
