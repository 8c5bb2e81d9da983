// The checked arguments of the hidden layer, shared by embed_linear_tanh and mlp_cross_entropy.
#pragma once

#include "ops/checks.h"

namespace pymlp {

// What the op calls these arguments in its messages.
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

  // Throws, naming op and argument, unless shapes, dtypes and ids fit each other.
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

}  // namespace pymlp
