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

// The panel of C vectors' width from 1 to gemm_vectors.
template <class T, int C = Vec<T>::gemm_vectors>
inline void gemm_panel_of(int64_t vectors, int64_t M, int64_t K, Strided<T> a, const T* b,
                          int64_t ldb, T* c, int64_t ldc, int tail, bool accumulate) {
  if constexpr (C > 1) {
    if (vectors < C) {
      return gemm_panel_of<T, C - 1>(vectors, M, K, a, b, ldb, c, ldc, tail, accumulate);
    }
  }
  if (tail > 0) {
    gemm_panel<T, C, true>(M, K, a, b, ldb, c, ldc, tail, accumulate);
  } else {
    gemm_panel<T, C, false>(M, K, a, b, ldb, c, ldc, 0, accumulate);
  }
}

template <class T>
inline void gemm(int64_t M, int64_t N, int64_t K, Strided<T> a, const T* b, int64_t ldb, T* c,
                 int64_t ldc, bool accumulate) {
  constexpr int W = Vec<T>::size;
  for (int64_t k = 0; k < K || k == 0; k += gemm_depth) {
    const int64_t depth = smaller(gemm_depth, K - k);
    const Strided<T> block{a.data + k * a.column, a.row, a.column};
    // As few panels as possible, of almost equal width.
    int64_t j = 0, vectors = divide_up(N, W);
    for (int64_t left = divide_up(vectors, Vec<T>::gemm_vectors); left > 0; --left) {
      const int64_t width = divide_up(vectors, left);
      const int tail = vectors == width ? static_cast<int>(N % W) : 0;
      gemm_panel_of<T>(width, M, depth, block, b + k * ldb + j, ldb, c + j, ldc, tail,
                       accumulate || k > 0);
      vectors -= width;
      j += width * W;
    }
  }
}
