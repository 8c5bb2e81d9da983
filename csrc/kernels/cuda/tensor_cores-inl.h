// Products of arrays in shared memory by tensor cores, with float32's accuracy.
//
// Tensor cores multiply numbers of 11 bits, TF32. A float32 is the sum of two such, big and small,
// and a rest of at most 2^-22 of it; of the products of two such sums all but small * small are
// added. The hardware adds eight products at once, but may round towards zero, which would pull a
// long sum to one side: so eight are all that it adds, and the rest is added by float32's own rule.
#pragma once

#include "kernels/cuda/common-inl.h"

namespace pymlp {
namespace cuda {

constexpr int tensor_rows = 16, tensor_columns = 8, tensor_depth = 8;

// A factor of a product over k: element (i, k) is at i * row + k, or, if `by_columns`, at
// k * row + i. Lanes read different banks if row is 8 more than a multiple of 16.
template <bool by_columns>
struct TensorFactor {
  static constexpr bool columns = by_columns;
  Shared<float> data;
  int row;

  PYMLP_DEVICE float at(int i, int k) const { return data[by_columns ? k * row + i : i * row + k]; }
};

// The two parts of some numbers. What is infinite or no number stays so.
template <int count>
struct SplitNumbers {
  float big[count], small[count];

  PYMLP_DEVICE void set(int i, float x) {
    constexpr uint32_t bits = 0xffffe000;  // those that TF32 has
    big[i] = float_of_bits(bits_of_float(x) & bits);
    small[i] = float_of_bits((bits_of_float(x - big[i]) + 0x1000) & bits);
  }
};

// A warp's sums of 16 rows and `tiles` times eight columns, from row i0 and column j0 on.
template <int tiles>
struct TensorTile {
  int i0, j0;
  float sum[tiles][4];

  PYMLP_DEVICE TensorTile(int i0, int j0) : i0(i0), j0(j0) {
#pragma unroll
    for (int n = 0; n < tiles; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[n][e] = 0;
    }
  }

  // Which element of the product a lane has as sum[n][e].
  PYMLP_DEVICE int row(const Thread& t, int e) const { return i0 + t.lane / 4 + (e < 2 ? 0 : 8); }
  PYMLP_DEVICE int column(const Thread& t, int n, int e) const {
    return j0 + n * tensor_columns + t.lane % 4 * 2 + e % 2;
  }

  // sum += Σ a(row, k) b(column, k) over k in [first, last), multiples of eight. Columns from J on,
  // a multiple of eight, are left out. Which of the eight k's a lane has is free, as long as it is
  // the same for both factors: neighbours, where both lie along k.
  template <bool a_columns, bool b_columns>
  PYMLP_DEVICE void add(const Thread& t, const TensorFactor<a_columns>& a,
                        const TensorFactor<b_columns>& b, int J, int first, int last) {
    constexpr bool neighbours = !a_columns && !b_columns;
    const int i = i0 + t.lane / 4, j = j0 + t.lane / 4;
    const int lane_k = t.lane % 4 * (neighbours ? 2 : 1);
    constexpr int other_k = neighbours ? 1 : 4;
    for (int k = first + lane_k; k < last; k += tensor_depth) {
      SplitNumbers<4> x;
      x.set(0, a.at(i, k));
      x.set(1, a.at(i + 8, k));
      x.set(2, a.at(i, k + other_k));
      x.set(3, a.at(i + 8, k + other_k));
#pragma unroll
      for (int n = 0; n < tiles; ++n) {
        if (j0 + n * tensor_columns >= J) break;
        SplitNumbers<2> y;
        y.set(0, b.at(j + n * tensor_columns, k));
        y.set(1, b.at(j + n * tensor_columns, k + other_k));
        float eight[4] = {};
        t.multiply_tf32(x.small, y.big, eight);
        t.multiply_tf32(x.big, y.small, eight);
        t.multiply_tf32(x.big, y.big, eight);
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[n][e] += eight[e];
      }
    }
  }
};

}  // namespace cuda
}  // namespace pymlp
