// The table of the kernels of one storage type: each entry makes the kernel's scratch layout and
// runs it.
#pragma once

#include "kernels/cuda/cross_entropy-inl.h"
#include "kernels/cuda/embed_linear_tanh_backward-inl.h"

namespace pymlp {
namespace cuda {

template <class S>
Operators<S, Queue> make_operators() {
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
  return k;
}

}  // namespace cuda
}  // namespace pymlp
