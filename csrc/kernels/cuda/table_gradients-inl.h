// The hidden layer's gradients from the sums of dpre by token (token_sums-inl.h). With G_t[v] =
// Σ dpre over the examples whose token at position t is v,
//
//   dweight_t (H, E) = G_tᵀ embedding    dembedding (V, E) = Σ_t G_t weight_t
//
// and dbias is the table's last row. Both are small products of the same long factor, so they are
// one launch of threads that each make a few elements.
#pragma once

#include "kernels/cuda/token_sums-inl.h"

namespace pymlp {
namespace cuda {

template <class S>
struct GradientsFromTables {
  using A = Accumulate<S>;
  static constexpr int threads = 256, warps = threads / warp_size;
  static constexpr int together = 4;  // neighbouring e's of a thread, or of a warp

  EmbedLinearTanh<S> p;
  const A *G, *factor;  // factor: what all are multiplied with, or null
  EmbedLinearTanhGradients<S> d;
  int64_t groups, weight_blocks;  // of e's; blocks that make dweight and dbias

  static void run(const EmbedLinearTanh<S>& p, const A* G, const A* factor,
                  const EmbedLinearTanhGradients<S>& d, const Queue& queue) {
    const int64_t groups = divide_up(p.E, together);
    const int64_t weight_blocks = divide_up((p.T * groups + 1) * p.H, threads);
    launch(queue, {weight_blocks + divide_up(p.V * groups, warps)},
           GradientsFromTables{p, G, factor, d, groups, weight_blocks});
  }

  PYMLP_DEVICE void operator()(Thread& t) const {
    if (t.block < weight_blocks) {
      const int64_t i = t.block * threads + t.thread, h = i % p.H, group = i / p.H;
      if (group < p.T * groups) {
        make_weight(h, group / groups, group % groups * together);
      } else if (group == p.T * groups && d.bias) {
        narrow(scaled(G[p.T * p.V * p.H + h], factor), d.bias[h]);
      }
    } else {
      const int64_t i = (t.block - weight_blocks) * warps + t.warp;
      if (i < p.V * groups) make_embedding(t, i / groups, i % groups * together);
    }
  }

 private:
  // An embedding that no example has is not looked at, be it NaN.
  PYMLP_DEVICE void make_weight(int64_t h, int64_t position, int64_t e) const {
    A sum[together] = {};
#pragma unroll 4
    for (int64_t v = 0; v < p.V; ++v) {
      const A* row = G + (position * p.V + v) * p.H;
      A x[together];
      load_elements(p.embedding + v * p.E, e, p.E, A(0), x);
#pragma unroll
      for (int j = 0; j < together; ++j) {
        const bool is_finite = x[j] - x[j] == 0;
        sum[j] = fused(row[h], is_finite || occurs(row, p.H) ? x[j] : A(0), sum[j]);
      }
    }
    store(d.weight + (h * p.T + position) * p.E, e, sum);
  }

  PYMLP_DEVICE void make_embedding(Thread& t, int64_t v, int64_t e) const {
    A sum[together] = {};
    for (int64_t position = 0; position < p.T; ++position) {
#pragma unroll 4
      for (int64_t h = t.lane; h < p.H; h += warp_size) {
        A x[together];
        load_elements(p.weight + (h * p.T + position) * p.E, e, p.E, A(0), x);
        const A g = G[(position * p.V + v) * p.H + h];
#pragma unroll
        for (int j = 0; j < together; ++j) sum[j] = fused(g, x[j], sum[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < together; ++j) sum[j] = lanes_sum<warp_size>(t, sum[j]);
    if (t.lane == 0) store(d.embedding + v * p.E, e, sum);
  }

  PYMLP_DEVICE void store(S* row, int64_t e, A (&sum)[together]) const {
#pragma unroll
    for (int j = 0; j < together; ++j) sum[j] = scaled(sum[j], factor);
    store_elements(row, e, p.E, sum);
  }
};

}  // namespace cuda
}  // namespace pymlp
