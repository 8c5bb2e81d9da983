// The table of the kernels of one storage type: each entry makes the kernel's scratch layout and
// runs it. Included where a type's kernels are compiled, and nowhere else.
#pragma once

#include "kernels/cuda/cross_entropy-inl.h"
#include "kernels/cuda/mlp_cross_entropy-inl.h"
#include "kernels/cuda/mlp_logits-inl.h"
#include "kernels/cuda/mlp_update-inl.h"
#include "kernels/cuda/operators.h"

namespace pymlp {
namespace cuda {

template <class S>
Operators<S, Queue> operators() {
  using A = Accumulate<S>;
  Operators<S, Queue> k{};
  k.embed_linear_tanh_forward_workspace = [](const EmbedLinearTanh<S>& p) {
    return measure<EmbedLinearTanhForward<S>>(p);
  };
  k.embed_linear_tanh_forward = [](const EmbedLinearTanh<S>& p, S* hidden, void* workspace,
                                   const Queue& queue) {
    make<EmbedLinearTanhForward<S>>(workspace, p).run(hidden, queue);
  };
  k.embed_linear_tanh_backward_workspace = [](const EmbedLinearTanh<S>& p) {
    return measure<EmbedLinearTanhBackward<S>>(p);
  };
  k.embed_linear_tanh_backward = [](const EmbedLinearTanh<S>& p, const S* hidden, const S* dhidden,
                                    const EmbedLinearTanhGradients<S>& gradients, void* workspace,
                                    const Queue& queue) {
    make<EmbedLinearTanhBackward<S>>(workspace, p).run(hidden, dhidden, gradients, nullptr, queue);
  };
  k.cross_entropy_forward_workspace = [](const CrossEntropy<S>& p) {
    return measure<CrossEntropyForward<S>>(p);
  };
  k.cross_entropy_forward = [](const CrossEntropy<S>& p, A* loss, A* softmax, void* workspace,
                               const Queue& queue) {
    make<CrossEntropyForward<S>>(workspace, p).run(loss, softmax, queue);
  };
  k.cross_entropy_backward_workspace = [](const CrossEntropy<S>& p) {
    return measure<CrossEntropyBackward<S>>(p);
  };
  k.cross_entropy_backward = [](const CrossEntropy<S>& p, const A* softmax, const A* grad_output,
                                S* dinput, void* workspace, const Queue& queue) {
    make<CrossEntropyBackward<S>>(workspace, p).run(softmax, grad_output, dinput, queue);
  };
  k.linear_cross_entropy_workspace = [](const LinearCrossEntropy<S>& p, bool gradients) {
    return measure<LinearCrossEntropyKernel<S>>(p, gradients);
  };
  k.linear_cross_entropy = [](const LinearCrossEntropy<S>& p, A* loss,
                              const LinearCrossEntropyGradients<S>* gradients, void* workspace,
                              const Queue& queue) {
    make<LinearCrossEntropyKernel<S>>(workspace, p, gradients != nullptr)
        .run(loss, gradients, queue);
  };
  k.mlp_cross_entropy_workspace = [](const MlpCrossEntropy<S>& p, bool gradients) {
    return measure<MlpCrossEntropyKernel<S>>(p, gradients);
  };
  k.mlp_cross_entropy = [](const MlpCrossEntropy<S>& p, A* loss,
                           const MlpCrossEntropyGradients<S>* gradients, void* workspace,
                           const Queue& queue) {
    make<MlpCrossEntropyKernel<S>>(workspace, p, gradients != nullptr).run(loss, gradients, queue);
  };
  if constexpr (is_wide<S>) {
    k.mlp_logits_workspace = [](const MlpLogits<S>& p) { return measure<MlpLogitsKernel<S>>(p); };
    k.mlp_logits = [](const MlpLogits<S>& p, S* logits, void* workspace, const Queue& queue) {
      make<MlpLogitsKernel<S>>(workspace, p).run(logits, queue);
    };
    k.mlp_update = mlp_update<S>;
  } else {
    const Operators<A, Queue> wide = operators<A>();
    k.mlp_logits_workspace = wide.mlp_logits_workspace;
    k.mlp_logits = wide.mlp_logits;
    k.mlp_update = wide.mlp_update;
  }
  return k;
}

}  // namespace cuda
}  // namespace pymlp
