// The model's logits, for inference: check -> allocate -> call.
#pragma once

#include "ops/embed_linear_tanh.h"
#include "ops/linear_cross_entropy.h"

namespace pymlp {

template <class Backend>
Tensor mlp_logits(const Tensor& tokens, const Tensor& embedding, const Tensor& hidden_weight,
                  const Tensor& hidden_bias, const Tensor& output_weight,
                  const Tensor& output_bias) {
  constexpr const char* op = "mlp_logits";
  const Argument like{op, "embedding", embedding};
  check(
      embedding.scalar_type() == ScalarType::Float || embedding.scalar_type() == ScalarType::Double,
      "pymlp.", op, ": embedding must be float32 or float64");
  check_dim({op, "tokens", tokens}, 2);
  const EmbedLinearTanhArguments hidden(op, {tokens, embedding, hidden_weight, hidden_bias},
                                        {"hidden_weight", "hidden_bias"});
  const int64_t H = hidden_weight.size(0), V = output_weight.size(0);
  check_like({op, "output_weight", output_weight}, like);
  check_like({op, "output_bias", output_bias}, like);
  check_shape({op, "output_weight", output_weight}, {V, H});
  check_shape({op, "output_bias", output_bias}, {V});
  check(V == embedding.size(0), "pymlp.", op, ": output_weight must have the rows of embedding");
  const Tensor weight = dense(output_weight), bias = dense(output_bias);
  const Tensor logits = empty({tokens.size(0), V}, embedding.scalar_type(), embedding.device());
  const Backend backend(op, embedding.device());
  const auto run = [&](auto tag) {
    using A = decltype(tag);
    const auto& kernels = backend.template kernels<A>();
    const MlpLogits<A> problem{hidden.problem<A>(), data<A>(weight), data<A>(bias)};
    backend.run(kernels.mlp_logits, kernels.mlp_logits_workspace(problem), problem,
                mutable_data<A>(logits));
  };
  if (embedding.scalar_type() == ScalarType::Double) {
    run(double{});
  } else {
    run(float{});
  }
  return logits;
}

}  // namespace pymlp
