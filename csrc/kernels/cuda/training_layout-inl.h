// The places of a model's arrays while a block trains it.
//
// Rows are padded so that lanes which read 16 bytes each from rows one below the other hit
// different banks, and padding is zero, so that products need no limits. Biases are the last column
// of a layer's input, which is 1 there: a product adds them, and another sums their gradients.
//
//   embedding      (V, E)
//   hidden weight  (K + 1, H), K = T * E; row K is the bias
//   output weight  (V, H + 1); column H is the bias
#pragma once

#include "kernels/cuda/common-inl.h"
#include "kernels/cuda/training.h"

namespace pymlp {
namespace cuda {

PYMLP_HOST_DEVICE constexpr int rounded_up(int n, int to) { return (n + to - 1) / to * to; }

// An odd number of fours.
PYMLP_HOST_DEVICE constexpr int padded_row(int n) { return 4 * (rounded_up(n, 4) / 4 | 1); }

struct TrainingLayout {
  TrainingSizes z;
  int K;                                         // T * E
  int rows;                                      // of the batch, padded: tiles have 8
  int row_k, row_v, row_h;                       // lengths of rows of K + 1, V and H + 1
  int hidden_weight, output_weight, parameters;  // where they begin; the length of all
  int logit_parts, input_parts;  // sums over H are made in so many parts, by different threads

  PYMLP_HOST_DEVICE explicit TrainingLayout(const TrainingSizes& sizes)
      : z(sizes),
        K(z.T * z.E),
        rows(rounded_up(z.B, 8)),
        row_k(padded_row(rounded_up(K + 1, 8))),
        row_v(padded_row(rounded_up(z.V, 8))),
        row_h(padded_row(z.H + 1)),
        hidden_weight(rounded_up(z.V * z.E, 4)),
        output_weight(hidden_weight + rounded_up(K + 1, 4) * row_h),
        parameters(output_weight + rounded_up(z.V, 4) * row_h),
        logit_parts(parts(row_h / row_v)),
        input_parts(parts(row_h / row_k)) {}

  // Elements of the arrays of a batch. The hidden layer is no longer needed when dinput is made,
  // dhidden not yet when the logits are: they share their memory.
  PYMLP_HOST_DEVICE int input() const { return rows * row_k; }
  PYMLP_HOST_DEVICE int hidden() const { return rows * (row_h > row_k ? row_h : row_k); }
  PYMLP_HOST_DEVICE int dhidden() const { return rows * (row_h > row_v ? row_h : row_v); }
  PYMLP_HOST_DEVICE int dlogits() const { return rows * row_v; }
  PYMLP_HOST_DEVICE int ids() const { return z.B * (z.T + 1); }  // tokens, then targets

  // The bytes that a block needs without state and gradients. In 64 bits: sizes may be any.
  template <class A>
  static int64_t shared_bytes(const TrainingSizes& sizes, int warps) {
    constexpr int64_t too_many = int64_t(1) << 20;  // elements of one array; beyond any device
    const int64_t K = int64_t(sizes.T) * sizes.E;
    if (larger(K, larger(sizes.V, larger(sizes.H, sizes.B))) > too_many) return most_int64;
    const int64_t rows = sizes.B + 7, H = sizes.H + 12, V = sizes.V + 16;
    if (larger(V * larger(sizes.E, H), larger((K + 16) * H, rows * (K + V + 2 * H))) > too_many) {
      return most_int64;
    }
    const TrainingLayout l(sizes);
    const auto array = [](int64_t count, int64_t size) { return (count * size + 15) / 16 * 16; };
    const int64_t a = sizeof(A), id = sizeof(int32_t);
    return array(l.parameters, a) + array(l.input(), a) + array(l.hidden(), a) +
           array(l.dhidden(), a) + array(l.dlogits(), a) + 2 * array(l.ids(), id) +
           array(sizes.V, id) + array(int64_t(sizes.B) * sizes.T, id) + array(sizes.B, 8) +
           array(warps, 8);
  }
  template <class A>
  int64_t array_bytes() const {
    return (int64_t(parameters) * sizeof(A) + 15) / 16 * 16;
  }

  static constexpr int64_t most_int64 = int64_t(1) << 62;

  // Which parameter a column or row belongs to; -1: it is padding.
  PYMLP_DEVICE int owner_in_hidden(int k, int h) const {
    return h >= z.H || k > K ? -1 : k < K ? 1 : 2;
  }
  PYMLP_DEVICE int owner_in_output(int v, int h) const {
    return v >= z.V || h > z.H ? -1 : h < z.H ? 3 : 4;
  }
  PYMLP_DEVICE int owner(int i) const {
    if (i < hidden_weight) return i < z.V * z.E ? 0 : -1;
    const bool first_layer = i < output_weight;
    const int within = i - (first_layer ? hidden_weight : output_weight);
    const int row = within / row_h, column = within % row_h;
    return first_layer ? owner_in_hidden(row, column) : owner_in_output(row, column);
  }

  // Element i of a parameter as torch has it: where it is here.
  PYMLP_DEVICE int size(int parameter) const {
    switch (parameter) {
      case 0:
        return z.V * z.E;
      case 1:
        return z.H * K;
      case 2:
        return z.H;
      case 3:
        return z.V * z.H;
      default:
        return z.V;
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
        return output_weight + i / z.H * row_h + i % z.H;
      default:
        return output_weight + i * row_h + z.H;
    }
  }

 private:
  // A power of two: with one warp a part, as many for each of the four schedulers.
  PYMLP_HOST_DEVICE static int parts(int fit) {
    return fit >= 8 ? 8 : fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
  }
};

}  // namespace cuda
}  // namespace pymlp
