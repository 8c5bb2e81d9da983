// The whole model, its loss and the gradients of all parameters, in one of two ways:
//
//   pass    of models that it takes, gradients in one pass over the examples (mlp_pass-inl.h);
//   layers  embed_linear_tanh and linear_cross_entropy one after the other, with the hidden layer
//           and its gradient in scratch.
//
// The gradients' common factor is left for the very end.
#pragma once

#include <optional>

#include "kernels/cuda/embed_linear_tanh_backward-inl.h"
#include "kernels/cuda/linear_cross_entropy-inl.h"
#include "kernels/cuda/mlp_pass-inl.h"

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
struct MlpLayers {
  using A = Accumulate<S>;
  const MlpCrossEntropy<S> p;
  S *hidden, *dhidden;  // (N, H)
  EmbedLinearTanhForward<S> forward;
  LinearCrossEntropyPass<S> last_layer;
  std::optional<EmbedLinearTanhBackward<S>> backward;

  MlpLayers(Workspace& workspace, const MlpCrossEntropy<S>& problem, bool gradients)
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

template <class S>
struct MlpCrossEntropyKernel {
  using A = Accumulate<S>;
  std::optional<MlpPass> pass;
  std::optional<MlpLayers<S>> layers;

  MlpCrossEntropyKernel(Workspace& workspace, const MlpCrossEntropy<S>& p, bool gradients) {
    if constexpr (std::is_same<S, float>::value) {
      if (gradients && MlpPass::takes(p)) {
        pass.emplace(workspace, p);
        return;
      }
    }
    layers.emplace(workspace, p, gradients);
  }

  void run(A* loss, const MlpCrossEntropyGradients<S>* gradients, const Queue& queue) const {
    if constexpr (std::is_same<S, float>::value) {
      if (pass) return pass->run(loss, *gradients, queue);
    }
    layers->run(loss, gradients, queue);
  }
};

}  // namespace cuda
}  // namespace pymlp
