// Matrix products of the sizes this model has: operands that fit a core's caches, read where they
// lie.

// C (M, N) = A (M, K) B (K, N), or += if accumulate. A has any strides (so that its transpose is
// one too); rows of B and C are contiguous, ldb and ldc elements apart.
//
// Each element of C is a sum over k in order, in blocks of gemm_depth that are added up in turn.
// That order is the same for every tile shape, hence the result does not depend on how M and N were
// divided among tasks.
constexpr int64_t gemm_depth = 256;

template <class T>
struct Strided {
  const T* data;
  int64_t row, column;
};

// One tile: R rows by C vectors of columns, of which the last has only `tail` lanes if Partial.
template <class T, int R, int C, bool Partial>
inline void gemm_tile(int64_t K, Strided<T> a, const T* b, int64_t ldb, T* c, int64_t ldc, int tail,
                      bool accumulate) {
  constexpr int W = Vec<T>::size;
  const auto lanes = [&](auto j) {
    if constexpr (Partial && j == C - 1) {
      return FirstLanes{tail};
    } else {
      return AllLanes{};
    }
  };
  Vec<T> sum[R][C];
  unrolled<R>([&](auto i) { unrolled<C>([&](auto j) { sum[i][j] = constant(T(0)); }); });
  for (int64_t k = 0; k < K; ++k) {
    Vec<T> row[C];
    unrolled<C>([&](auto j) { row[j] = load(b + k * ldb + j * W, lanes(j)); });
    unrolled<R>([&](auto i) {
      const Vec<T> x = constant(a.data[i * a.row + k * a.column]);
      unrolled<C>([&](auto j) { sum[i][j] = fma(x, row[j], sum[i][j]); });
    });
  }
  unrolled<R>([&](auto i) {
    unrolled<C>([&](auto j) {
      T* out = c + i * ldc + j * W;
      const Vec<T> result = accumulate ? load(out, lanes(j)) + sum[i][j] : sum[i][j];
      store(out, result, lanes(j));
    });
  });
}

template <class T>
using GemmTile = void (*)(int64_t, Strided<T>, const T*, int64_t, T*, int64_t, int, bool);

// The tile for a number of rows from 1 to gemm_rows.
template <class T, int C, bool Partial, int R = Vec<T>::gemm_rows>
inline GemmTile<T> tile_of_rows(int64_t rows) {
  if constexpr (R > 1) {
    if (rows < R) return tile_of_rows<T, C, Partial, R - 1>(rows);
  }
  return gemm_tile<T, R, C, Partial>;
}

// A panel of columns: all rows, in as few tiles as possible of almost equal height.
template <class T, int C, bool Partial>
inline void gemm_panel(int64_t M, int64_t K, Strided<T> a, const T* b, int64_t ldb, T* c,
                       int64_t ldc, int tail, bool accumulate) {
  int64_t i = 0;
  for (int64_t left = divide_up(M, Vec<T>::gemm_rows); left > 0; --left) {
    const int64_t rows = (M - i) / left;
    const Strided<T> block{a.data + i * a.row, a.row, a.column};
    tile_of_rows<T, C, Partial>(rows)(K, block, b, ldb, c + i * ldc, ldc, tail, accumulate);
    i += rows;
  }
}

template <class T>
inline void gemm(int64_t M, int64_t N, int64_t K, Strided<T> a, const T* b, int64_t ldb, T* c,
                 int64_t ldc, bool accumulate) {
  constexpr int W = Vec<T>::size;
  for (int64_t k = 0; k < K || k == 0; k += gemm_depth) {
    const int64_t depth = smaller(gemm_depth, K - k);
    const Strided<T> block{a.data + k * a.column, a.row, a.column};
    const bool add = accumulate || k > 0;
    for (int64_t j = 0; j < N; j += 2 * W) {
      const T* panel = b + k * ldb + j;
      const int64_t left = N - j;
      const int tail = static_cast<int>(left % W);
      if (left >= 2 * W) {
        gemm_panel<T, 2, false>(M, depth, block, panel, ldb, c + j, ldc, 0, add);
      } else if (left > W) {
        gemm_panel<T, 2, true>(M, depth, block, panel, ldb, c + j, ldc, tail, add);
      } else if (left == W) {
        gemm_panel<T, 1, false>(M, depth, block, panel, ldb, c + j, ldc, 0, add);
      } else {
        gemm_panel<T, 1, true>(M, depth, block, panel, ldb, c + j, ldc, tail, add);
      }
    }
  }
}
