// The whole model, its loss and the gradients of all parameters: embed_linear_tanh and
// linear_cross_entropy one after the other, with the hidden layer and its gradient in scratch. The
// gradients' common factor is left for the very end.
#pragma once

#include <optional>

#include "kernels/cuda/embed_linear_tanh_backward-inl.h"
#include "kernels/cuda/linear_cross_entropy-inl.h"

namespace pymlp {
namespace cuda {

template <class A>
struct StoreFactor {
  static constexpr int threads = warp_size;
  const A* factor;
  A* out;

  PYMLP_DEVICE void operator()(Thread& t) const {
    if (t.thread == 0) *out = *factor;
  }
};

template <class S>
struct MlpCrossEntropyKernel {
  using A = Accumulate<S>;
  const MlpCrossEntropy<S> p;
  S *hidden, *dhidden;  // (N, H)
  EmbedLinearTanhForward<S> forward;
  LinearCrossEntropyPass<S> last_layer;
  std::optional<EmbedLinearTanhBackward<S>> backward;

  MlpCrossEntropyKernel(Workspace& workspace, const MlpCrossEntropy<S>& problem, bool gradients)
      : p(problem),
        hidden(workspace.take<S>(p.hidden.N * p.hidden.H)),
        dhidden(workspace.take<S>(gradients ? p.hidden.N * p.hidden.H : 0)),
        forward(workspace, p.hidden),
        last_layer(workspace, on(hidden, p.output), gradients) {
    if (gradients) backward.emplace(workspace, p.hidden);
  }

  void run(A* loss, const MlpCrossEntropyGradients<S>* gradients, const Queue& queue) const {
    forward.run(hidden, queue);
    if (!gradients) return last_layer.run(loss, nullptr, nullptr, nullptr, queue);
    const MlpCrossEntropyGradients<S>& d = *gradients;
    const A* factor = d.factor ? nullptr : last_layer.common_scale();
    const LinearCrossEntropyGradients<S> output{dhidden, d.output.weight, d.output.bias};
    last_layer.run(loss, &output, factor, nullptr, queue);
    backward->run(hidden, dhidden, d.hidden, factor, queue);
    if (d.factor) launch(queue, {1}, StoreFactor<A>{last_layer.common_scale(), d.factor});
  }

 private:
  static LinearCrossEntropy<S> on(const S* input, LinearCrossEntropy<S> output) {
    output.input = input;
    return output;
  }
};

}  // namespace cuda
}  // namespace pymlp
