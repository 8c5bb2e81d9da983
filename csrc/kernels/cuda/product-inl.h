// Matrix products of sizes at which a launch costs more than the arithmetic, or whose operands are
// not matrices in memory: gathered rows, a gradient computed on the way, a bias as one more column.
#pragma once

#include "kernels/cuda/common-inl.h"

namespace pymlp {
namespace cuda {

// A product says what it multiplies and what becomes of the sums:
//
//   using A                                       the type of arithmetic
//   int64_t M, N, K                               sizes; of each of the batch's products
//   A left(batch, m, k), right(batch, k, n)       factors
//   void store(batch, m, n, sum)
//   left_along_k, right_along_k                   whether factors that are neighbours in memory
//                                                 are so along k
//   few_tiles                                     true where the large tile would never pay: the
//                                                 result is as small as the hidden layer's weights
//
// A block computes a square of `tile` rows and columns, a thread a square of it. Factors go through
// shared memory, `depth` at a time; while those are multiplied the next are on their way. Each sum
// is made of sums over `block_depth` k's, so that its rounding errors grow with K / block_depth.
constexpr int block_depth = 256;

template <class Product, int tile>
struct TileProduct {
  using A = typename Product::A;
  static constexpr int threads = 256, side = 16, per_thread = tile / side;
  static constexpr int depth = 16, stride = tile + 4;
  static constexpr int loads = tile * depth / threads;
  static constexpr int64_t shared_bytes = 2 * depth * stride * static_cast<int64_t>(sizeof(A));

  Product product;
  int64_t column_tiles;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const Shared<A> left = t.shared<A>(depth * stride), right = t.shared<A>(depth * stride);
    const int64_t m0 = t.block / column_tiles * tile, n0 = t.block % column_tiles * tile;
    const int row = t.thread / side * per_thread, column = t.thread % side * per_thread;
    A total[per_thread][per_thread] = {}, sum[per_thread][per_thread] = {};
    A next_left[loads], next_right[loads];
    fetch(t, m0, n0, 0, next_left, next_right);
    for (int64_t k0 = 0; k0 < product.K; k0 += depth) {
      put<Product::left_along_k>(t, left, next_left);
      put<Product::right_along_k>(t, right, next_right);
      t.barrier();  // the factors are there
      fetch(t, m0, n0, k0 + depth, next_left, next_right);
#pragma unroll
      for (int k = 0; k < depth; ++k) {
        A x[per_thread], y[per_thread];
        get(left, k * stride + row, x);
        get(right, k * stride + column, y);
#pragma unroll
        for (int i = 0; i < per_thread; ++i) {
#pragma unroll
          for (int j = 0; j < per_thread; ++j) sum[i][j] = fused(x[i], y[j], sum[i][j]);
        }
      }
      if ((k0 / depth + 1) % (block_depth / depth) == 0) close_block(total, sum);
      t.barrier();  // nobody needs them any more
    }
    close_block(total, sum);
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
#pragma unroll
      for (int j = 0; j < per_thread; ++j) {
        const int64_t m = m0 + row + i, n = n0 + column + j;
        if (m < product.M && n < product.N) product.store(t.block_y, m, n, total[i][j]);
      }
    }
  }

 private:
  // The `load`-th factor of a thread: its place along the tile and along k.
  template <bool along_k>
  static PYMLP_DEVICE void place(const Thread& t, int load, int& i, int& k) {
    const int index = load * threads + t.thread;
    i = along_k ? index / depth : index % tile;
    k = along_k ? index % depth : index / tile;
  }

  PYMLP_DEVICE void fetch(const Thread& t, int64_t m0, int64_t n0, int64_t k0, A (&left)[loads],
                          A (&right)[loads]) const {
#pragma unroll
    for (int load = 0; load < loads; ++load) {
      int i, k;
      place<Product::left_along_k>(t, load, i, k);
      const bool left_inside = m0 + i < product.M && k0 + k < product.K;
      left[load] = left_inside ? product.left(t.block_y, m0 + i, k0 + k) : A(0);
      place<Product::right_along_k>(t, load, i, k);
      const bool right_inside = n0 + i < product.N && k0 + k < product.K;
      right[load] = right_inside ? product.right(t.block_y, k0 + k, n0 + i) : A(0);
    }
  }

  template <bool along_k>
  static PYMLP_DEVICE void put(const Thread& t, const Shared<A>& factors, const A (&from)[loads]) {
#pragma unroll
    for (int load = 0; load < loads; ++load) {
      int i, k;
      place<along_k>(t, load, i, k);
      factors[k * stride + i] = from[load];
    }
  }

  static PYMLP_DEVICE void get(const Shared<A>& factors, int first, A (&x)[per_thread]) {
    constexpr int W = per_thread < vector_width<A> ? per_thread : vector_width<A>;
#pragma unroll
    for (int i = 0; i < per_thread; i += W) {
      const auto vector = factors.template vector<W>(first + i);
#pragma unroll
      for (int j = 0; j < W; ++j) x[i + j] = vector.element[j];
    }
  }

  static PYMLP_DEVICE void close_block(A (&total)[per_thread][per_thread],
                                       A (&sum)[per_thread][per_thread]) {
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
#pragma unroll
      for (int j = 0; j < per_thread; ++j) {
        total[i][j] += sum[i][j];
        sum[i][j] = 0;
      }
    }
  }
};

// The large tile reads less, the small one gives more blocks: what it takes to keep an H100 busy.
constexpr int64_t multiprocessors = 132;
constexpr int large_tile = 64, small_tile = 32;
constexpr int64_t most_products = 0xffff;  // of a batch

template <class Product>
void multiply(const Queue& queue, const Product& product, int64_t batch = 1) {
  const auto start = [&](auto tile) {
    using Kernel = TileProduct<Product, tile>;
    const int64_t columns = divide_up(product.N, tile), rows = divide_up(product.M, tile);
    launch(queue, {rows * columns, batch}, Kernel{product, columns}, Kernel::shared_bytes);
  };
  if constexpr (!Product::few_tiles) {
    const int64_t tiles = divide_up(product.M, large_tile) * divide_up(product.N, large_tile);
    if (tiles * batch >= multiprocessors) return start(std::integral_constant<int, large_tile>());
  }
  start(std::integral_constant<int, small_tile>());
}

// --- products of few tiles and many k's ----------------------------------------------------------

// Parts of a product over k, as a batch. sums: (parts, M, N).
template <class Product>
struct PartsOfProduct {
  using A = typename Product::A;
  static constexpr bool left_along_k = Product::left_along_k;
  static constexpr bool right_along_k = Product::right_along_k;
  static constexpr bool few_tiles = true;
  int64_t M, N, K;  // K: of a part
  Product product;
  A* sums;

  PYMLP_DEVICE A left(int64_t part, int64_t m, int64_t k) const {
    return part * K + k < product.K ? product.left(0, m, part * K + k) : A(0);
  }
  PYMLP_DEVICE A right(int64_t part, int64_t k, int64_t n) const {
    return part * K + k < product.K ? product.right(0, part * K + k, n) : A(0);
  }
  PYMLP_DEVICE void store(int64_t part, int64_t m, int64_t n, A sum) const {
    sums[(part * M + m) * N + n] = sum;
  }
};

// Their sums, added up in order.
template <class Product>
struct AddParts {
  using A = typename Product::A;
  static constexpr int threads = 256;
  Product product;
  int64_t parts;
  const A* sums;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t size = product.M * product.N, i = t.block * threads + t.thread;
    if (i >= size) return;
    A sum = 0;
#pragma unroll 16  // so many are on their way at once
    for (int64_t part = 0; part < parts; ++part) sum += sums[part * size + i];
    product.store(0, i / product.N, i % product.N, sum);
  }
};

// A product of (M, N) over K, of which the tiles alone would keep few multiprocessors busy for
// long: a gradient over all examples. Parts have whole blocks of k's.
template <class A>
struct LongProduct {
  int64_t parts = 1, length = 0;
  A* sums = nullptr;

  LongProduct() = default;
  LongProduct(Workspace& workspace, int64_t M, int64_t N, int64_t K) {
    const int64_t tiles = larger(1, divide_up(M, small_tile) * divide_up(N, small_tile));
    const int64_t most = larger(1, smaller(multiprocessors / tiles, divide_up(K, block_depth)));
    length = divide_up(divide_up(K, most), block_depth) * block_depth;
    parts = larger(1, divide_up(K, larger(1, length)));
    sums = workspace.take<A>(parts > 1 ? parts * M * N : 0);
  }

  template <class Product>
  void run(const Queue& queue, const Product& product) const {
    if (parts == 1) return multiply(queue, product);
    using Parts = PartsOfProduct<Product>;
    multiply(queue, Parts{product.M, product.N, length, product, sums}, parts);
    launch(queue, {divide_up(product.M * product.N, AddParts<Product>::threads)},
           AddParts<Product>{product, parts, sums});
  }
};

// -------------------------------------------------------------------------------------------------

// x, times *factor unless that is null.
template <class A>
PYMLP_DEVICE A scaled(A x, const A* factor) {
  return factor ? x * *factor : x;
}

// --- products by the caller's library ------------------------------------------------------------

// From about as many multiply-adds on, the library's product is worth its launches.
constexpr int64_t worth_a_library = int64_t(1) << 27;

template <class S>
struct Operand {
  const S* data;
  bool transposed;
  int64_t ld;
};
template <class S>
struct Result {
  S* data;
  int64_t ld;
};

// Queue::matmul, with types; left out after an error, as launches are.
template <class S>
void matmul(const Queue& queue, int64_t M, int64_t N, int64_t K, Operand<S> a, Operand<S> b,
            Result<S> c, bool accumulate) {
  if (queue.error() != 0) return;
  const Queue::Matmul product{
      M,    N,      K,    a.data,     a.transposed,    a.ld, b.data, b.transposed,
      b.ld, c.data, c.ld, accumulate, scalar_kind<S>()};
  queue.matmul(product);
}

// sum += product, or = if `first`.
template <class S>
struct AddProduct {
  using A = Accumulate<S>;
  static constexpr int threads = 256;
  int64_t count;
  const S* product;
  bool first;
  A* sum;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t i = t.block * threads + t.thread;
    if (i < count) sum[i] = (first ? A(0) : sum[i]) + widen(product[i]);
  }
};

// out = factor * sum; sum may be out itself.
template <class S>
struct FinishSum {
  using A = Accumulate<S>;
  static constexpr int threads = 256;
  int64_t count;
  const A* sum;
  const A* factor;  // or null
  S* out;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t i = t.block * threads + t.thread;
    if (i < count) narrow(scaled(sum[i], factor), out[i]);
  }
};

template <class S>
void finish_sum(const Queue& queue, int64_t count, const Accumulate<S>* sum,
                const Accumulate<S>* factor, S* out) {
  const bool done = is_wide<S> && factor == nullptr && static_cast<const void*>(sum) == out;
  if (done) return;
  launch(queue, {divide_up(count, FinishSum<S>::threads)}, FinishSum<S>{count, sum, factor, out});
}

// out (M, N) = factor * Σ op(A) op(B) over some pairs of matrices, rounded once. Sums of 16-bit
// products are kept in float32.
template <class S>
struct SumOfProducts {
  using A = Accumulate<S>;
  int64_t M, N;
  A* sum;
  S* product;

  SumOfProducts() = default;
  SumOfProducts(Workspace& workspace, int64_t M, int64_t N) : M(M), N(N) {
    sum = workspace.take<A>(is_wide<S> ? 0 : M * N);
    product = workspace.take<S>(is_wide<S> ? 0 : M * N);
  }

  // a, b: of K rows each, rows lda and ldb apart, both transposed so that K comes second in op(A).
  void add(const Queue& queue, int64_t K, const S* a, int64_t lda, const S* b, int64_t ldb,
           bool first, S* out) const {
    if (M == 0 || N == 0) return;
    S* c = is_wide<S> ? out : product;
    matmul<S>(queue, M, N, K, {a, true, lda}, {b, false, ldb}, {c, N}, is_wide<S> && !first);
    if constexpr (!is_wide<S>) {
      launch(queue, {divide_up(M * N, AddProduct<S>::threads)},
             AddProduct<S>{M * N, product, first, sum});
    }
  }

  void finish(const Queue& queue, const A* factor, S* out) const {
    if constexpr (is_wide<S>) {
      finish_sum<S>(queue, M * N, out, factor, out);
    } else {
      finish_sum<S>(queue, M * N, sum, factor, out);
    }
  }
};

// x *= *factor
template <class S>
struct Scale {
  static constexpr int threads = 256;
  int64_t count;
  const Accumulate<S>* factor;
  S* x;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t i = t.block * threads + t.thread;
    if (i < count) narrow(widen(x[i]) * *factor, x[i]);
  }
};

template <class S>
void scale(const Queue& queue, int64_t count, const Accumulate<S>* factor, S* x) {
  launch(queue, {divide_up(count, Scale<S>::threads)}, Scale<S>{count, factor, x});
}

template <class S>
struct Fill {
  static constexpr int threads = 256;
  int64_t count;
  S* out;
  Accumulate<S> value;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t i = t.block * threads + t.thread;
    if (i < count) narrow(value, out[i]);
  }
};

template <class S>
void fill(const Queue& queue, S* out, int64_t count, Accumulate<S> value) {
  launch(queue, {divide_up(count, Fill<S>::threads)}, Fill<S>{count, out, value});
}

}  // namespace cuda
}  // namespace pymlp
