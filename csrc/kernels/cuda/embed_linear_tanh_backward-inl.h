// The gradients of embed_linear_tanh, in one of three ways; dpre = dhidden (1 - hidden²).
//
//   tables   where T * V rows of a table fit in shared memory: G_t[v] = Σ dpre over the examples
//            whose token at position t is v, then dweight_t = G_tᵀ embedding and
//            dembedding = Σ_t G_t weight_t. Nothing of size N is written.
//   direct   tile products that compute dpre and gather rows as they read them;
//   library  dpre and the gathered rows in memory, multiplied by the caller's library.
//
// The last two sum the rows of dx = dpre weight per token.
#pragma once

#include "kernels/cuda/embed_linear_tanh-inl.h"
#include "kernels/cuda/table_gradients-inl.h"

namespace pymlp {
namespace cuda {

template <class S>
HiddenMethod gradient_method(const EmbedLinearTanh<S>& p) {
  if (SumByToken<S>::fits(p.T, p.V)) return HiddenMethod::tables;
  return p.N * p.T * p.E * p.H >= worth_a_library ? HiddenMethod::library : HiddenMethod::direct;
}

// --- products with dpre --------------------------------------------------------------------------

template <class S>
PYMLP_DEVICE Accumulate<S> dpre_of(const S* hidden, const S* dhidden, int64_t i) {
  const Accumulate<S> y = widen(hidden[i]);
  return widen(dhidden[i]) * (1 - y * y);
}

// dweight (H, T*E) = dpreᵀ x, and dbias as one more column.
template <class S>
struct WeightProduct {
  using A = Accumulate<S>;
  static constexpr bool left_along_k = false, right_along_k = false;
  static constexpr bool few_tiles = true;
  int64_t M, N, K;
  EmbedLinearTanh<S> p;
  const S *hidden, *dhidden;
  const A* factor;
  S *dweight, *dbias;

  WeightProduct(const EmbedLinearTanh<S>& p, const S* hidden, const S* dhidden, const A* factor,
                const EmbedLinearTanhGradients<S>& d)
      : M(p.H),
        N(p.T * p.E + (d.bias ? 1 : 0)),
        K(p.N),
        p(p),
        hidden(hidden),
        dhidden(dhidden),
        factor(factor),
        dweight(d.weight),
        dbias(d.bias) {}

  PYMLP_DEVICE A left(int64_t, int64_t h, int64_t n) const {
    return dpre_of(hidden, dhidden, n * M + h);
  }
  PYMLP_DEVICE A right(int64_t, int64_t n, int64_t k) const {
    return k < p.T * p.E ? gathered(p, n, k) : A(1);
  }
  PYMLP_DEVICE void store(int64_t, int64_t h, int64_t k, A sum) const {
    const bool is_weight = k < p.T * p.E;
    narrow(scaled(sum, factor), is_weight ? dweight[h * p.T * p.E + k] : dbias[h]);
  }
};

// dx (N, T*E) = dpre weight
template <class S>
struct RowsProduct {
  using A = Accumulate<S>;
  static constexpr bool left_along_k = true, right_along_k = false;
  static constexpr bool few_tiles = false;
  int64_t M, N, K;
  const S *weight, *hidden, *dhidden;
  A* dx;

  PYMLP_DEVICE A left(int64_t, int64_t n, int64_t h) const {
    return dpre_of(hidden, dhidden, n * K + h);
  }
  PYMLP_DEVICE A right(int64_t, int64_t h, int64_t k) const { return widen(weight[h * N + k]); }
  PYMLP_DEVICE void store(int64_t, int64_t n, int64_t k, A sum) const { dx[n * N + k] = sum; }
};

template <class S>
struct StoreDpre {
  static constexpr int threads = 256;
  int64_t count;
  const S *hidden, *dhidden;
  S* dpre;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t i = t.block * threads + t.thread;
    if (i < count) narrow(dpre_of(hidden, dhidden, i), dpre[i]);
  }
};

// --- the whole -----------------------------------------------------------------------------------

template <class S>
struct EmbedLinearTanhBackward {
  using A = Accumulate<S>;
  using Gradients = EmbedLinearTanhGradients<S>;
  static constexpr int64_t rows_per_chunk = 8192;  // of the library's products

  const EmbedLinearTanh<S>& p;
  int64_t K, chunk;
  HiddenMethod method;
  TokenTables<S> tables;
  TokenRows token_rows;
  A* wide_dx;  // (N, K), of `direct`
  LongProduct<A> weight_product;
  S *dx, *dpre, *x, *ones;  // (N, K), (chunk, H), (chunk, K), (chunk), of `library`
  SumOfProducts<S> weight_sum, bias_sum;

  EmbedLinearTanhBackward(Workspace& workspace, const EmbedLinearTanh<S>& p)
      : EmbedLinearTanhBackward(workspace, p, gradient_method(p)) {}
  EmbedLinearTanhBackward(Workspace& workspace, const EmbedLinearTanh<S>& p, HiddenMethod method)
      : p(p),
        K(p.T * p.E),
        chunk(method == HiddenMethod::library ? smaller(p.N, rows_per_chunk) : 0),
        method(method),
        tables(workspace, p.N, p.T, p.V, method == HiddenMethod::tables ? p.H : 0) {
    const bool library = method == HiddenMethod::library;
    if (method != HiddenMethod::tables) token_rows = {workspace, p.N * p.T, p.V};
    wide_dx = workspace.take<A>(method == HiddenMethod::direct ? p.N * K : 0);
    if (method == HiddenMethod::direct) weight_product = {workspace, p.H, K + 1, p.N};
    dx = workspace.take<S>(library ? p.N * K : 0);
    dpre = workspace.take<S>(chunk * p.H);
    x = workspace.take<S>(chunk * K);
    ones = workspace.take<S>(chunk);
    if (!library) return;
    weight_sum = {workspace, p.H, K};
    bias_sum = {workspace, 1, p.H};
  }

  // factor: what all gradients are multiplied with, or null.
  void run(const S* hidden, const S* dhidden, const Gradients& d, const A* factor,
           const Queue& queue) const;

 private:
  void run_library(const S* hidden, const S* dhidden, const Gradients& d, const A* factor,
                   const Queue& queue) const {
    const int64_t H = p.H;
    fill(queue, ones, chunk, A(1));
    for (int64_t n = 0; n < p.N; n += chunk) {
      const int64_t rows = smaller(chunk, p.N - n);
      launch(queue, {divide_up(rows * H, StoreDpre<S>::threads)},
             StoreDpre<S>{rows * H, hidden + n * H, dhidden + n * H, dpre});
      GatherRows<S>::run(p, n, rows, x, queue);
      weight_sum.add(queue, rows, dpre, H, x, K, n == 0, d.weight);
      if (d.bias) bias_sum.add(queue, rows, ones, 1, dpre, H, n == 0, d.bias);
      matmul<S>(queue, rows, K, H, {dpre, false, H}, {p.weight, false, K}, {dx + n * K, K}, false);
    }
    weight_sum.finish(queue, factor, d.weight);
    if (d.bias) bias_sum.finish(queue, factor, d.bias);
    token_rows.run<S, S>(p.tokens, dx, p.E, factor, d.embedding, queue);
  }
};

template <class S>
void EmbedLinearTanhBackward<S>::run(const S* hidden, const S* dhidden, const Gradients& d,
                                     const A* factor, const Queue& queue) const {
  if (p.N == 0 || p.H == 0) {
    fill(queue, d.embedding, p.V * p.E, A(0));
    fill(queue, d.weight, p.H * K, A(0));
    if (d.bias) fill(queue, d.bias, p.H, A(0));
    return;
  }
  switch (method) {
    case HiddenMethod::tables:
      tables.run(p.tokens, hidden, dhidden, queue);
      GradientsFromTables<S>::run(p, tables.tables, factor, d, queue);
      return;
    case HiddenMethod::direct:
      weight_product.run(queue, WeightProduct<S>(p, hidden, dhidden, factor, d));
      multiply(queue, RowsProduct<S>{p.N, K, p.H, p.weight, hidden, dhidden, wide_dx});
      token_rows.run<A, S>(p.tokens, wide_dx, p.E, factor, d.embedding, queue);
      return;
    case HiddenMethod::library:
      run_library(hidden, dhidden, d, factor, queue);
      return;
  }
}

// Compiled once, by <type>.cu: `run` is not inline, so that it is not compiled anywhere else.
extern template struct EmbedLinearTanhBackward<float>;
extern template struct EmbedLinearTanhBackward<double>;
extern template struct EmbedLinearTanhBackward<bfloat16>;
extern template struct EmbedLinearTanhBackward<float16>;

}  // namespace cuda
}  // namespace pymlp
