// Matrix products of arrays in shared memory, in tiles of 8 x 4 sums a thread.
#pragma once

#include "kernels/cuda/common-inl.h"

namespace pymlp {
namespace cuda {

// A factor of a product over r: element (i, r) is at i * row + r, or, if `by_columns`, at
// r * row + i. Rows are whole fours long and begin at a multiple of four.
template <class A, bool by_columns>
struct SharedFactor {
  static constexpr bool columns = by_columns;
  Shared<A> data;
  int begin, row;
};

template <class A>
PYMLP_DEVICE void load_four(Shared<A> from, int i, A (&x)[4]) {
  constexpr int W = vector_width<A>;
#pragma unroll
  for (int j = 0; j < 4; j += W) {
    const Vector<A, W> v = from.template vector<W>(i + j);
#pragma unroll
    for (int c = 0; c < W; ++c) x[j + c] = v.element[c];
  }
}

template <class A>
PYMLP_DEVICE void store_four(Shared<A> to, int i, const A (&x)[4]) {
  constexpr int W = vector_width<A>;
#pragma unroll
  for (int j = 0; j < 4; j += W) {
    Vector<A, W> v;
#pragma unroll
    for (int c = 0; c < W; ++c) v.element[c] = x[j + c];
    to.store(i + j, v);
  }
}

// A thread's sums of a tile: rows i(0..7), columns j(0..3). Where a factor lies by rows, a tile has
// every `tiles`-th of them, so that neighbouring lanes read neighbouring rows; where it lies by
// columns, it has them side by side.
template <class A, bool a_columns, bool b_columns>
struct ProductTile {
  static constexpr int height = 8, width = 4;
  int tile_i, tiles_i, tile_j, tiles_j;
  A sum[height][width];

  PYMLP_DEVICE int i(int s) const { return a_columns ? height * tile_i + s : tile_i + s * tiles_i; }
  PYMLP_DEVICE int j(int c) const { return b_columns ? width * tile_j + c : tile_j + c * tiles_j; }

  // Over r in [4 * first, 4 * last).
  PYMLP_DEVICE void compute(const SharedFactor<A, a_columns>& a,
                            const SharedFactor<A, b_columns>& b, int first, int last) {
#pragma unroll
    for (int s = 0; s < height; ++s) {
#pragma unroll
      for (int c = 0; c < width; ++c) sum[s][c] = 0;
    }
    for (int four = first; four < last; ++four) {
      A y[width][4];  // column, r
      load_b(b, 4 * four, y);
      if constexpr (a_columns) {
        add_columns(a, 4 * four, y);
      } else {
        add_rows(a, 4 * four, y);
      }
    }
  }

 private:
  PYMLP_DEVICE void load_b(const SharedFactor<A, b_columns>& b, int r, A (&y)[width][4]) const {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      if constexpr (b_columns) {
        A x[4];
        load_four(b.data, b.begin + (r + q) * b.row + j(0), x);
#pragma unroll
        for (int c = 0; c < width; ++c) y[c][q] = x[c];
      } else {
        load_four(b.data, b.begin + j(q) * b.row + r, y[q]);
      }
    }
  }

  PYMLP_DEVICE void add_rows(const SharedFactor<A, a_columns>& a, int r, const A (&y)[width][4]) {
#pragma unroll
    for (int s = 0; s < height; ++s) {
      A x[4];
      load_four(a.data, a.begin + i(s) * a.row + r, x);
#pragma unroll
      for (int q = 0; q < 4; ++q) {
#pragma unroll
        for (int c = 0; c < width; ++c) sum[s][c] = fused(x[q], y[c][q], sum[s][c]);
      }
    }
  }

  PYMLP_DEVICE void add_columns(const SharedFactor<A, a_columns>& a, int r,
                                const A (&y)[width][4]) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
#pragma unroll
      for (int half = 0; half < height; half += 4) {
        A x[4];
        load_four(a.data, a.begin + (r + q) * a.row + i(half), x);
#pragma unroll
        for (int s = 0; s < 4; ++s) {
#pragma unroll
          for (int c = 0; c < width; ++c) {
            sum[half + s][c] = fused(x[s], y[c][q], sum[half + s][c]);
          }
        }
      }
    }
  }
};

// sum(i, j) over r of a(i, r) b(j, r) for I rows and J columns, the R terms in so many parts. The
// rows and columns that fill the last tiles, and r up to a multiple of four, have to be there.
// body(tile, part) for each tile.
template <class A, bool a_columns, bool b_columns, class Body>
PYMLP_DEVICE void shared_product(Thread& t, const SharedFactor<A, a_columns>& a,
                                 const SharedFactor<A, b_columns>& b, int I, int J, int R,
                                 int parts, const Body& body) {
  using Tile = ProductTile<A, a_columns, b_columns>;
  const int tiles_i = (I + Tile::height - 1) / Tile::height;
  const int tiles_j = (J + Tile::width - 1) / Tile::width, fours = (R + 3) / 4;
  for (int n = t.thread; n < tiles_i * tiles_j * parts; n += t.threads) {
    Tile tile;
    tile.tile_j = n % tiles_j;
    tile.tile_i = n / tiles_j % tiles_i;
    tile.tiles_i = tiles_i;
    tile.tiles_j = tiles_j;
    const int part = n / tiles_j / tiles_i;
    tile.compute(a, b, fours * part / parts, fours * (part + 1) / parts);
    body(tile, part);
  }
}

}  // namespace cuda
}  // namespace pymlp
