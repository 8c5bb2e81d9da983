// Products of arrays in shared memory by tensor cores, with float32's accuracy.
//
// Tensor cores multiply numbers of 11 bits, TF32. A float32 is the sum of two such, big and small,
// and a rest of at most 2^-22 of it; of the products of two such sums all but small * small are
// added. The hardware adds up the products of eight k's, but may round towards zero, which would
// pull a long sum to one side: so it adds no more than those, and float32's own rule the rest.
#pragma once

#include "kernels/cuda/common-inl.h"

namespace pymlp {
namespace cuda {

constexpr int tensor_rows = 16, tensor_columns = 8, tensor_depth = 8;

// A float32 in two TF32. An infinite one is infinity and NaN; NaN is NaN.
struct SplitNumber {
  float big, small;

  SplitNumber() = default;
  PYMLP_DEVICE explicit SplitNumber(float x) {
    constexpr uint32_t bits = 0xffffe000;  // those that TF32 has
    big = float_of_bits(bits_of_float(x) & bits);
    const float rest = x - big;
    // A device's NaN has all bits set: to round it would make it zero.
    small = rest == rest ? float_of_bits((bits_of_float(rest) + 0x1000) & bits) : rest;
  }
};

// A factor of a product over k: element (i, k) is at i * row + k, or, if `by_columns`, at
// k * row + i. Rows are 8 more than a multiple of 16 long, so that lanes read different banks, but
// for a left factor that lies along k beside a right one by columns: there two share one.
template <bool by_columns>
struct TensorFactor {
  static constexpr bool columns = by_columns;
  Shared<float> data;
  int row;

  PYMLP_DEVICE SplitNumber at(int i, int k) const {
    return SplitNumber(data[by_columns ? k * row + i : i * row + k]);
  }
};

// The same of numbers that are split already, since they are read often.
template <bool by_columns>
struct SplitFactor {
  static constexpr bool columns = by_columns;
  Shared<float> big;
  int row, small_from;  // small parts lie so much farther on than big ones

  PYMLP_DEVICE SplitNumber at(int i, int k) const {
    const int at = by_columns ? k * row + i : i * row + k;
    SplitNumber x;
    x.big = big[at];
    x.small = big[small_from + at];
    return x;
  }
};

// A warp's sums of `high` times 16 rows and `wide` times eight columns, from row i0 and column j0
// on.
template <int high, int wide>
struct TensorTile {
  static constexpr int rows = high * tensor_rows, columns = wide * tensor_columns;
  int i0, j0;
  float sum[high][wide][4];

  PYMLP_DEVICE TensorTile(int i0, int j0) : i0(i0), j0(j0) {
#pragma unroll
    for (int m = 0; m < high; ++m) {
#pragma unroll
      for (int n = 0; n < wide; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[m][n][e] = 0;
      }
    }
  }

  // sum += Σ a(row, k) b(column, k) over k in [first, last), multiples of eight. Columns from J on,
  // a multiple of eight, are left out. Which of the eight k's a lane has is free, as long as it is
  // the same for both factors: neighbours, where both lie along k.
  template <class Left, class Right>
  PYMLP_DEVICE void add(const Thread& t, const Left& a, const Right& b, int J, int first,
                        int last) {
    constexpr bool neighbours = !Left::columns && !Right::columns;
    constexpr int other_k = neighbours ? 1 : 4;
    const int i = i0 + t.lane / 4, j = j0 + t.lane / 4;
    for (int k = first + t.lane % 4 * (neighbours ? 2 : 1); k < last; k += tensor_depth) {
      SplitNumber x[high][4];
#pragma unroll
      for (int m = 0; m < high; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          x[m][e] = a.at(i + m * tensor_rows + e % 2 * 8, k + e / 2 * other_k);
        }
      }
#pragma unroll
      for (int n = 0; n < wide; ++n) {
        if (j0 + n * tensor_columns >= J) break;
        const SplitNumber y[2] = {b.at(j + n * tensor_columns, k),
                                  b.at(j + n * tensor_columns, k + other_k)};
#pragma unroll
        for (int m = 0; m < high; ++m) add_eight(t, x[m], y, sum[m][n]);
      }
    }
  }

  // body(row, column, sum) for the elements that a lane has, in columns before J.
  template <class Body>
  PYMLP_DEVICE void for_elements(const Thread& t, int J, const Body& body) const {
#pragma unroll
    for (int n = 0; n < wide; ++n) {
      if (j0 + n * tensor_columns >= J) break;
#pragma unroll
      for (int m = 0; m < high; ++m) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          body(i0 + m * tensor_rows + t.lane / 4 + e / 2 * 8,
               j0 + n * tensor_columns + t.lane % 4 * 2 + e % 2, sum[m][n][e]);
        }
      }
    }
  }

 private:
  PYMLP_DEVICE static void add_eight(const Thread& t, const SplitNumber (&x)[4],
                                     const SplitNumber (&y)[2], float (&sum)[4]) {
    const float x_big[4] = {x[0].big, x[1].big, x[2].big, x[3].big};
    const float x_small[4] = {x[0].small, x[1].small, x[2].small, x[3].small};
    const float y_big[2] = {y[0].big, y[1].big}, y_small[2] = {y[0].small, y[1].small};
    float eight[4] = {};
    t.multiply_tf32(x_small, y_big, eight);
    t.multiply_tf32(x_big, y_small, eight);
    t.multiply_tf32(x_big, y_big, eight);
#pragma unroll
    for (int e = 0; e < 4; ++e) sum[e] += eight[e];
  }
};

}  // namespace cuda
}  // namespace pymlp
