#include "ops/embed_linear_tanh.h"

namespace pymlp {

EmbedLinearTanhArguments::EmbedLinearTanhArguments(const char* op, const Tensors& in,
                                                   const EmbedLinearTanhNames& names) {
  const Argument tokens{op, "tokens", in.tokens}, embedding{op, "embedding", in.embedding};
  const Argument weight{op, names.weight, in.weight};
  check_integer(tokens);
  check_floating(embedding);
  check_dim(embedding, 2);
  check_device(tokens, embedding);
  check_like(weight, embedding);
  check_dim(weight, 2);
  check(in.tokens.dim() >= 1, "pymlp.", op,
        ": tokens must have shape (..., block_size), got a single number");
  T_ = in.tokens.size(-1);
  check(T_ >= 1, "pymlp.", op, ": tokens must have a last dimension of at least 1, got 0");
  const int64_t H = in.weight.size(0);
  check_shape(weight, {H, T_ * in.embedding.size(1)});
  if (in.bias) {
    const Argument bias{op, names.bias, *in.bias};
    check_like(bias, embedding);
    check_shape(bias, {H});
    bias_ = dense(*in.bias);
  }
  tokens_ = dense(in.tokens);
  embedding_ = dense(in.embedding);
  weight_ = dense(in.weight);
  check_ids({op, "tokens", tokens_}, embedding_.size(0));
}

}  // namespace pymlp
