// The logits of many contexts, for inference.
#pragma once

#include "kernels/cuda/embed_linear_tanh-inl.h"
#include "kernels/cuda/linear_cross_entropy-inl.h"

namespace pymlp {
namespace cuda {

// x (N, V) += bias, a warp a row.
template <class A>
struct AddBias {
  static constexpr int threads = 256, warps = threads / warp_size, W = vector_width<A>;
  int64_t N, V;
  const A* bias;
  A* x;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t n = t.block * warps + t.warp;
    if (n >= N) return;
    for (int64_t v = t.lane * W; v < V; v += warp_size * W) {
      A sum[W], b[W];
      load_elements(x + n * V, v, V, A(0), sum);
      load_elements(bias, v, V, A(0), b);
#pragma unroll
      for (int i = 0; i < W; ++i) sum[i] += b[i];
      store_elements(x + n * V, v, V, sum);
    }
  }
};

template <class A>
struct MlpLogitsKernel {
  const MlpLogits<A>& p;
  bool library;
  A* hidden;  // (N, H)
  EmbedLinearTanhForward<A> first_layer;

  MlpLogitsKernel(Workspace& workspace, const MlpLogits<A>& p)
      : MlpLogitsKernel(workspace, p, p.hidden.N * p.hidden.H * p.hidden.V >= worth_a_library) {}
  MlpLogitsKernel(Workspace& workspace, const MlpLogits<A>& p, bool library)
      : p(p),
        library(library),
        hidden(workspace.take<A>(p.hidden.N * p.hidden.H)),
        first_layer(workspace, p.hidden) {}

  void run(A* logits, const Queue& queue) const {
    const int64_t N = p.hidden.N, H = p.hidden.H, V = p.hidden.V;
    first_layer.run(hidden, queue);
    if (!library) {
      multiply(queue, LogitsProduct<A>{N, V, H, hidden, p.weight, p.bias, logits});
      return;
    }
    matmul<A>(queue, N, V, H, {hidden, false, H}, {p.weight, true, H}, {logits, V}, false);
    if (p.bias) {
      launch(queue, {divide_up(N, AddBias<A>::warps)}, AddBias<A>{N, V, p.bias, logits});
    }
  }
};

}  // namespace cuda
}  // namespace pymlp
