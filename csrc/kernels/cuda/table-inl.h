// The table of the kernels of one storage type: each entry makes the kernel's scratch layout and
// runs it.
#pragma once

#include "kernels/cuda/cross_entropy-inl.h"

namespace pymlp {
namespace cuda {

template <class S>
Operators<S, Queue> make_operators() {
  using A = Accumulate<S>;
  Operators<S, Queue> k{};
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
