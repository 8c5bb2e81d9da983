// hidden = tanh(concat_t(embedding[tokens[:, t]]) weightᵀ + bias), in one of three ways:
//
//   direct   one launch: a tile product that gathers the embedding's rows as it reads them;
//   tables   P_t = embedding weight_tᵀ for all tokens, then T row additions an example;
//   library  the gathered rows in memory, multiplied by the caller's library, then bias and tanh.
//
// The products of `direct` and `library` cost N * T * E * H multiply-adds, those of `tables`
// V * T * E * H: tables pay where N is well above V. All thresholds are estimates.
#pragma once

#include "kernels/cuda/token_sums-inl.h"

namespace pymlp {
namespace cuda {

enum class HiddenMethod { direct, tables, library };

constexpr int64_t worth_tables = int64_t(1) << 25;  // multiply-adds of the direct way

template <class S>
HiddenMethod hidden_method(const EmbedLinearTanh<S>& p) {
  const int64_t direct = p.N * p.T * p.E * p.H;
  const bool many_rows = p.N >= 4 * p.V && p.T <= most_products;
  if (many_rows && direct >= worth_tables) return HiddenMethod::tables;
  return direct >= worth_a_library ? HiddenMethod::library : HiddenMethod::direct;
}

// Products divide columns of their factors in 32 bits. `direct` sees fewer in any case.
static_assert(worth_a_library <= 0x7fffffff, "T * E is less than what `direct` multiplies");

// Column k of the concatenated embeddings of example n: NaN for a token out of range.
template <class S>
PYMLP_DEVICE Accumulate<S> gathered(const EmbedLinearTanh<S>& p, int64_t n, int64_t k) {
  const int E = static_cast<int>(p.E), position = static_cast<int>(k) / E;
  const int64_t id = id_at(p.tokens, n * p.T + position);
  if (id < 0 || id >= p.V) return not_a_number<Accumulate<S>>();
  return widen(p.embedding[id * p.E + (static_cast<int>(k) - position * E)]);
}

// --- forward -------------------------------------------------------------------------------------

template <class S>
struct HiddenProduct {
  using A = Accumulate<S>;
  static constexpr bool left_along_k = true, right_along_k = true;
  static constexpr bool few_tiles = false;
  int64_t M, N, K;
  EmbedLinearTanh<S> p;
  S* hidden;

  HiddenProduct(const EmbedLinearTanh<S>& p, S* hidden)
      : M(p.N), N(p.H), K(p.T * p.E), p(p), hidden(hidden) {}

  PYMLP_DEVICE A left(int64_t, int64_t n, int64_t k) const { return gathered(p, n, k); }
  PYMLP_DEVICE A right(int64_t, int64_t k, int64_t h) const { return widen(p.weight[h * K + k]); }
  PYMLP_DEVICE void store(int64_t, int64_t n, int64_t h, A sum) const {
    narrow(tanh_of(sum + (p.bias ? widen(p.bias[h]) : A(0))), hidden[n * N + h]);
  }
};

// table (T, V, H): P_t, one product for each t.
template <class S>
struct TableProduct {
  using A = Accumulate<S>;
  static constexpr bool left_along_k = true, right_along_k = true;
  static constexpr bool few_tiles = false;
  int64_t M, N, K;
  EmbedLinearTanh<S> p;
  A* table;

  TableProduct(const EmbedLinearTanh<S>& p, A* table)
      : M(p.V), N(p.H), K(p.E), p(p), table(table) {}

  PYMLP_DEVICE A left(int64_t, int64_t v, int64_t e) const {
    return widen(p.embedding[v * p.E + e]);
  }
  PYMLP_DEVICE A right(int64_t t, int64_t e, int64_t h) const {
    return widen(p.weight[(h * p.T + t) * p.E + e]);
  }
  PYMLP_DEVICE void store(int64_t t, int64_t v, int64_t h, A sum) const {
    table[(t * p.V + v) * p.H + h] = sum;
  }
};

// hidden[n] = tanh(bias + Σ_t table[t, tokens[n, t]]), a warp a row.
template <class S>
struct HiddenFromTables {
  using A = Accumulate<S>;
  static constexpr int threads = 256, warps = threads / warp_size, W = vector_width<S>;
  EmbedLinearTanh<S> p;
  const A* table;  // (T, V, H)
  S* hidden;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t n = t.block * warps + t.warp;
    if (n >= p.N) return;
    for (int64_t h = t.lane * W; h < p.H; h += warp_size * W) {
      A sum[W] = {};
      if (p.bias) load_elements(p.bias, h, p.H, A(0), sum);
      for (int64_t position = 0; position < p.T; ++position) {
        const int64_t id = id_at(p.tokens, n * p.T + position);
        const bool in_range = id >= 0 && id < p.V;
        A row[W];
        load_elements(table + (position * p.V + (in_range ? id : 0)) * p.H, h, p.H, A(0), row);
#pragma unroll
        for (int i = 0; i < W; ++i) sum[i] += in_range ? row[i] : not_a_number<A>();
      }
#pragma unroll
      for (int i = 0; i < W; ++i) sum[i] = tanh_of(sum[i]);
      store_elements(hidden + n * p.H, h, p.H, sum);
    }
  }
};

// x (rows, T*E): the embeddings of examples `first`, first + 1, ..., a warp an embedding.
template <class S>
struct GatherRows {
  static constexpr int threads = 256, warps = threads / warp_size;
  EmbedLinearTanh<S> p;
  int64_t first, rows;
  S* x;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t i = t.block * warps + t.warp;
    if (i >= rows * p.T) return;
    const int64_t id = id_at(p.tokens, first * p.T + i);
    const bool in_range = id >= 0 && id < p.V;
    for (int64_t e = t.lane; e < p.E; e += warp_size) {
      if (in_range) {
        x[i * p.E + e] = p.embedding[id * p.E + e];
      } else {
        narrow(not_a_number<Accumulate<S>>(), x[i * p.E + e]);
      }
    }
  }

  static void run(const EmbedLinearTanh<S>& p, int64_t first, int64_t rows, S* x,
                  const Queue& queue) {
    launch(queue, {divide_up(rows * p.T, warps)}, GatherRows{p, first, rows, x});
  }
};

// hidden = tanh(hidden + bias), a warp a row.
template <class S>
struct BiasTanh {
  using A = Accumulate<S>;
  static constexpr int threads = 256, warps = threads / warp_size, W = vector_width<S>;
  int64_t N, H;
  const S* bias;  // or null
  S* hidden;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t n = t.block * warps + t.warp;
    if (n >= N) return;
    for (int64_t h = t.lane * W; h < H; h += warp_size * W) {
      A x[W], b[W] = {};
      load_elements(hidden + n * H, h, H, A(0), x);
      if (bias) load_elements(bias, h, H, A(0), b);
#pragma unroll
      for (int i = 0; i < W; ++i) x[i] = tanh_of(x[i] + b[i]);
      store_elements(hidden + n * H, h, H, x);
    }
  }
};

template <class S>
struct EmbedLinearTanhForward {
  using A = Accumulate<S>;
  const EmbedLinearTanh<S>& p;
  HiddenMethod method;
  A* table;  // (T, V, H)
  S* rows;   // (N, T*E)

  EmbedLinearTanhForward(Workspace& workspace, const EmbedLinearTanh<S>& p)
      : EmbedLinearTanhForward(workspace, p, hidden_method(p)) {}
  EmbedLinearTanhForward(Workspace& workspace, const EmbedLinearTanh<S>& p, HiddenMethod method)
      : p(p), method(method) {
    table = workspace.take<A>(method == HiddenMethod::tables ? p.T * p.V * p.H : 0);
    rows = workspace.take<S>(method == HiddenMethod::library ? p.N * p.T * p.E : 0);
  }

  void run(S* hidden, const Queue& queue) const;
};

template <class S>
void EmbedLinearTanhForward<S>::run(S* hidden, const Queue& queue) const {
  if (p.N == 0 || p.H == 0) return;
  const int64_t K = p.T * p.E;
  switch (method) {
    case HiddenMethod::direct:
      multiply(queue, HiddenProduct<S>(p, hidden));
      return;
    case HiddenMethod::tables:
      multiply(queue, TableProduct<S>(p, table), p.T);
      launch(queue, {divide_up(p.N, HiddenFromTables<S>::warps)},
             HiddenFromTables<S>{p, table, hidden});
      return;
    case HiddenMethod::library:
      GatherRows<S>::run(p, 0, p.N, rows, queue);
      matmul<S>(queue, p.N, p.H, K, {rows, false, K}, {p.weight, true, K}, {hidden, p.H}, false);
      launch(queue, {divide_up(p.N, BiasTanh<S>::warps)}, BiasTanh<S>{p.N, p.H, p.bias, hidden});
      return;
  }
}

// Compiled once, by <type>.cu: `run` is not inline, so that it is not compiled anywhere else.
extern template struct EmbedLinearTanhForward<float>;
extern template struct EmbedLinearTanhForward<double>;
extern template struct EmbedLinearTanhForward<bfloat16>;
extern template struct EmbedLinearTanhForward<float16>;

}  // namespace cuda
}  // namespace pymlp
