// Where the arrays of a model lie while a block trains it.
//
// Rows are padded so that lanes which read 16 bytes each from rows one below the other hit
// different banks, and padding is zero, so that products need no limits. Biases are the last column
// of a layer's input, which is 1 there: a product adds them, and another sums their gradients.
//
//   embedding      (V, E)
//   hidden weight  (K + 1, H), K = T * E; row K is the bias
//   output weight  (V, H + 1); column H is the bias
//
// The blocks of a cluster divide the hidden units, and so the columns of both weights, as evenly as
// whole fours allow; the last has the bias of the output as well. The embedding and the batch are
// whole in each. Arrays are equally long in all blocks, so that they lie in the same place.
//
// Sums over hidden units are made in parts, by different threads, and each block has whole ones. A
// model has as many parts as one block has room for, however many blocks there are, so that it has
// the same bits in any cluster of no more blocks than that; more, if it needs more blocks.
#pragma once

#include "kernels/cuda/training.h"
#include "kernels/cuda/training_products-inl.h"

namespace pymlp {
namespace cuda {

PYMLP_HOST_DEVICE constexpr int rounded_up(int n, int to) { return (n + to - 1) / to * to; }

PYMLP_HOST_DEVICE constexpr int fours_of(int n) { return (n + 3) / 4; }

// An odd number of fours.
PYMLP_HOST_DEVICE constexpr int padded_row(int fours) { return 4 * (fours | 1); }

struct TrainingLayout {
  TrainingSizes z;
  int K;                                         // T * E
  int rows;                                      // of the batch, padded: tiles have 8
  int first, units, columns;                     // this block's hidden units; with the bias
  int row_k, row_v, row_h;                       // lengths of rows of K + 1, V and columns
  int hidden_weight, output_weight, parameters;  // where they begin; the length of all
  SumParts logit_parts, input_parts;             // of sums over hidden units; logits' with the bias

  // Of block `rank` of a cluster of so many.
  PYMLP_HOST_DEVICE explicit TrainingLayout(const TrainingSizes& sizes, int cluster = 1,
                                            int rank = 0)
      : z(sizes),
        K(z.T * z.E),
        rows(rounded_up(z.B, 8)),
        first(units_before(z.H, cluster, rank)),
        units(units_before(z.H, cluster, rank + 1) - first),
        columns(units + (rank == cluster - 1 ? 1 : 0)),
        row_k(padded_row(fours_of(rounded_up(K + 1, 8)))),
        row_v(padded_row(fours_of(rounded_up(z.V, 8)))),
        row_h(padded_row((fours_of(z.H + 1) + cluster - 1) / cluster)),
        hidden_weight(rounded_up(z.V * z.E, 4)),
        output_weight(hidden_weight + rounded_up(K + 1, 4) * row_h),
        parameters(output_weight + rounded_up(z.V, 4) * row_h),
        logit_parts(parts(row_v, columns, cluster, rank)),
        input_parts(parts(row_k, units, cluster, rank)) {}

  // As Training::most_blocks. A size that no device has room for has no layout.
  static int most_blocks(const TrainingSizes& sizes) {
    if (shared_bytes<float>(sizes, largest_cluster, 1) >= most_int64) return 1;
    const TrainingLayout l(sizes);
    return smaller(l.logit_parts.parts, l.input_parts.parts);
  }

  // Elements of the arrays of a batch. The hidden layer is no longer needed when dinput is made,
  // dhidden not yet when the logits are: they share their memory.
  PYMLP_HOST_DEVICE int input() const { return rows * row_k; }
  PYMLP_HOST_DEVICE int hidden() const { return rows * (row_h > row_k ? row_h : row_k); }
  PYMLP_HOST_DEVICE int dhidden() const { return rows * (row_h > row_v ? row_h : row_v); }
  PYMLP_HOST_DEVICE int dlogits() const { return rows * row_v; }
  PYMLP_HOST_DEVICE int ids() const { return z.B * (z.T + 1); }  // tokens, then targets
  // Sums of squares of gradients: rows of the weights are dealt out to so many sums of each part.
  static constexpr int square_sums = 8;
  PYMLP_HOST_DEVICE int squares() const { return logit_parts.parts * square_sums; }

  // What each block of a cluster needs without state and gradients. In 64 bits: sizes may be any.
  template <class A>
  static int64_t shared_bytes(const TrainingSizes& sizes, int cluster, int warps) {
    constexpr int64_t too_many = int64_t(1) << 20;  // elements of one array; beyond any device
    const int64_t K = int64_t(sizes.T) * sizes.E;
    if (larger(K, larger(sizes.V, larger(sizes.H, sizes.B))) > too_many) return most_int64;
    const int64_t rows = sizes.B + 7, H = sizes.H / cluster + 12, V = sizes.V + 16;
    if (larger(V * larger(sizes.E, H), larger((K + 16) * H, rows * (K + V + 2 * H))) > too_many) {
      return most_int64;
    }
    const TrainingLayout l(sizes, cluster);
    const auto array = [](int64_t count, int64_t size) { return (count * size + 15) / 16 * 16; };
    const int64_t a = sizeof(A), id = sizeof(int32_t);
    return array(l.parameters, a) + array(l.input(), a) + array(l.hidden(), a) +
           array(l.dhidden(), a) + array(l.dlogits(), a) + 2 * array(l.ids(), id) +
           array(sizes.V, id) + array(int64_t(sizes.B) * sizes.T, id) + array(sizes.B, 8) +
           array(warps, 8) + array(l.squares(), 8) +
           (cluster > 1 ? array(l.input(), a) + array(l.dlogits(), a) : 0);
  }
  template <class A>
  int64_t array_bytes() const {
    return (int64_t(parameters) * sizeof(A) + 15) / 16 * 16;
  }

  static constexpr int64_t most_int64 = int64_t(1) << 62;

  // Which parameter a column or row belongs to; -1: it is padding.
  PYMLP_DEVICE int owner_in_hidden(int k, int h) const {
    return h >= units || k > K ? -1 : k < K ? 1 : 2;
  }
  PYMLP_DEVICE int owner_in_output(int v, int h) const {
    return v >= z.V || h >= columns ? -1 : h < units ? 3 : 4;
  }
  PYMLP_DEVICE int owner(int i) const {
    if (i < hidden_weight) return i < z.V * z.E ? 0 : -1;
    const bool first_layer = i < output_weight;
    const int within = i - (first_layer ? hidden_weight : output_weight);
    const int row = within / row_h, column = within % row_h;
    return first_layer ? owner_in_hidden(row, column) : owner_in_output(row, column);
  }

  // Of a parameter, as many elements are here; element i of these is where in torch's, and where
  // here.
  PYMLP_DEVICE int size(int parameter) const {
    switch (parameter) {
      case 0:
        return z.V * z.E;
      case 1:
        return units * K;
      case 2:
        return units;
      case 3:
        return z.V * units;
      default:
        return columns > units ? z.V : 0;
    }
  }
  PYMLP_DEVICE int torch_place(int parameter, int i) const {
    switch (parameter) {
      case 1:
        return first * K + i;
      case 2:
        return first + i;
      case 3:
        return units == z.H ? i : i / units * z.H + first + i % units;
      default:
        return i;
    }
  }
  PYMLP_DEVICE int place(int parameter, int i) const {
    switch (parameter) {
      case 0:
        return i;
      case 1:
        return hidden_weight + i % K * row_h + i / K;
      case 2:
        return hidden_weight + K * row_h + i;
      case 3:
        return output_weight + i / units * row_h + i % units;
      default:
        return output_weight + i * row_h + units;
    }
  }

 private:
  // Of the blocks before block `rank`: those with more fours come first.
  PYMLP_HOST_DEVICE static int units_before(int H, int cluster, int rank) {
    if (rank == 0) return 0;
    const int fours = (fours_of(H) * rank + cluster - 1) / cluster;
    return rank == cluster || 4 * fours > H ? H : 4 * fours;
  }
  // Sums of rows of so many numbers lie where one array of the hidden layer has its own; terms:
  // this block's.
  PYMLP_HOST_DEVICE SumParts parts(int row, int terms, int cluster, int rank) const {
    const int row_of_one = padded_row(fours_of(z.H + 1));
    int all = 1;  // a power of two
    while (all < 32 && 2 * all * row <= row_of_one) all *= 2;
    all = all > cluster ? all : cluster;
    const int own = all / cluster;
    return {own, rank * own, all, fours_of(z.H), fours_of(terms)};
  }
};

}  // namespace cuda
}  // namespace pymlp
