// Softmax cross-entropy of a row of logits, by a group of threads: what cross_entropy and
// linear_cross_entropy share.
#pragma once

#include "kernels/cuda/common-inl.h"

namespace pymlp {
namespace cuda {

// The maximum of a row and the sum of exp(x - maximum): the loss is stable for logits of any size.
template <class A>
struct RowSoftmax {
  A maximum, sum;
};

// Scalars that kernels leave on the device for later kernels. The common factor is multiplied into
// the gradients last, because it is small for large batches. Earlier, it would turn many dlogits
// into subnormal numbers, and those of float16 into zeros.
template <class A>
struct Scalars {
  double normalizer;   // what the sum of losses is divided by
  A class_weight_sum;  // Σ w
  A row_scale;     // factor of each row's gradient, unless rows have their own (Reduction::none)
  A common_scale;  // factor of all gradients, left for the end
};

// The threads that share a row: more for longer rows.
constexpr int few_lanes = 8, many_lanes = 256;

// The most blocks of a launch whose rows have at most a warp each: they take the rows in turns.
constexpr int64_t most_row_blocks = 4096;

template <int lanes>
struct RowGroup {
  static constexpr int threads = many_lanes;
  static constexpr int count = threads / lanes;  // groups in a block

  static int64_t blocks(int64_t N, int64_t most = most_row_blocks) {
    return smaller(divide_up(N, count), lanes > warp_size ? 0x7fffffff : most);
  }
};

// body(lanes as a constant) for rows of V elements.
template <class Body>
void with_lanes_for(int64_t V, const Body& body) {
  if (V <= 64) {
    body(std::integral_constant<int, few_lanes>());
  } else if (V <= 2048) {
    body(std::integral_constant<int, warp_size>());
  } else {
    body(std::integral_constant<int, many_lanes>());
  }
}

// Logits that are read as they are.
template <class S>
struct PlainLogits {
  using A = Accumulate<S>;
  static constexpr int W = vector_width<S>;
  const S* row;
  int64_t V;

  PYMLP_DEVICE void load(int64_t v, A (&x)[W]) const {
    load_elements(row, v, V, -infinity<A>(), x);
  }
  PYMLP_DEVICE A at(int64_t v) const { return widen(row[v]); }
};

// softcap * tanh((row + bias) / softcap), or without the one or the other.
template <class X, class S>
struct LinearLogits {
  using A = Accumulate<X>;
  static constexpr int W = vector_width<X>;
  const X* row;
  int64_t V;
  const S* bias;       // (V) or null
  A softcap, inverse;  // of it; or 0

  PYMLP_DEVICE void load(int64_t v, A (&x)[W]) const {
    load_elements(row, v, V, -infinity<A>(), x);
    if (bias) {
      A b[W];
      load_elements(bias, v, V, A(0), b);
#pragma unroll
      for (int i = 0; i < W; ++i) x[i] += b[i];
    }
    if (softcap > 0) {
#pragma unroll
      for (int i = 0; i < W; ++i) {
        if (v + i >= 0 && v + i < V) x[i] = softcap * tanh_of(x[i] * inverse);
      }
    }
  }
  PYMLP_DEVICE A at(int64_t v) const {
    const A x = widen(row[v]) + (bias ? widen(bias[v]) : A(0));
    return softcap > 0 ? softcap * tanh_of(x * inverse) : x;
  }
};

// body(v) for the first of each W elements that a thread takes of a row, so that its address is a
// multiple of 16 bytes: the first and the last may lie partly outside the row.
template <int W, class S, class Body>
PYMLP_DEVICE void for_vectors(const S* row, int64_t V, int lane, int lanes, int together,
                              const Body& body) {
  const int64_t shift = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row) / sizeof(S) % W);
  const int64_t step = static_cast<int64_t>(lanes) * W;
  for (int64_t v = static_cast<int64_t>(lane) * W - shift; v < V; v += step * together) body(v);
}

// How many vectors of W elements a thread has on their way at once: `elements` in all, fewer where
// rows are short.
PYMLP_HOST_DEVICE constexpr int64_t vectors_together(int lanes, int elements, int W) {
  return larger(1, (lanes > warp_size ? elements : lanes == warp_size ? elements / 2 : 1) / W);
}

// One pass over the row: where the maximum grows, the sum so far is scaled down to it.
template <int lanes, class Logits, class A = typename Logits::A>
PYMLP_DEVICE RowSoftmax<A> row_softmax(Thread& t, Shared<A> scratch, const Logits& logits) {
  constexpr int W = Logits::W;
  constexpr int together = static_cast<int>(vectors_together(lanes, 16, W));
  A maximum = -infinity<A>(), sum = 0;
  for_vectors<W>(logits.row, logits.V, t.thread % lanes, lanes, together, [&](int64_t v) {
    A x[together][W];
    A largest = maximum;
#pragma unroll
    for (int j = 0; j < together; ++j) logits.load(v + static_cast<int64_t>(j) * lanes * W, x[j]);
#pragma unroll
    for (int j = 0; j < together; ++j) {
#pragma unroll
      for (int i = 0; i < W; ++i) largest = x[j][i] > largest ? x[j][i] : largest;
    }
    if (largest > maximum) {
      sum *= exp_of(maximum - largest);
      maximum = largest;
    }
    A few = 0;  // a long sum loses the more digits the more terms it has
#pragma unroll
    for (int j = 0; j < together; ++j) {
#pragma unroll
      for (int i = 0; i < W; ++i) {
        // Nothing but -inf so far (and the elements outside the row): adds nothing. NaN does.
        few += x[j][i] == -infinity<A>() ? A(0) : exp_of(x[j][i] - maximum);
      }
    }
    sum += few;
  });
  const A row_maximum = group_max<lanes>(t, scratch, maximum);
  if (maximum < row_maximum) sum *= exp_of(maximum - row_maximum);
  const A row_sum = group_sum<lanes>(t, scratch, sum);
  // The softmax of a row of -inf is undefined.
  return {row_maximum, row_maximum == -infinity<A>() ? not_a_number<A>() : row_sum};
}

// CrossEntropyOptions in the type arithmetic is done in. With p = softmax(x), target y, class
// weights w, smoothing s and W = Σ w, the loss of a row is, as in F.cross_entropy,
//   (1 - s) w_y (-log p_y) + s/V Σ_v w_v (-log p_v) + z_loss logsumexp(x)².
template <class S>
struct SoftmaxLoss {
  using A = Accumulate<S>;
  int64_t V;
  Ids target;
  int64_t ignore_index;
  A smoothing, z_loss, softcap, inverse_softcap;
  const S* class_weight;  // (V) or null
  bool per_row;           // Reduction::none

  SoftmaxLoss(int64_t V, Ids target, const CrossEntropyOptions<S>& options)
      : V(V),
        target(target),
        ignore_index(options.ignore_index),
        smoothing(A(options.label_smoothing)),
        z_loss(A(options.z_loss)),
        softcap(A(options.softcap)),
        inverse_softcap(A(options.softcap > 0 ? 1 / options.softcap : 0)),
        class_weight(options.class_weight),
        per_row(options.reduction == Reduction::none) {}

  bool one_term() const { return smoothing == 0 && z_loss == 0; }

  PYMLP_DEVICE bool in_range(int64_t id) const { return id >= 0 && id < V; }

  PYMLP_DEVICE A weight_of(int64_t v) const { return class_weight ? widen(class_weight[v]) : A(1); }

  // The weight that a target adds to the normaliser.
  PYMLP_DEVICE A weight_of_target(int64_t id) const {
    if (id == ignore_index) return 0;
    return in_range(id) ? weight_of(id) : not_a_number<A>();
  }

  // The loss of the row with target `id`, which need not be in range; computed by the threads that
  // share the row.
  template <int lanes, class Logits>
  PYMLP_DEVICE A loss(Thread& t, Shared<A> scratch, const Logits& logits, RowSoftmax<A> row,
                      int64_t id) const {
    const A smooth = smoothing > 0 ? smooth_loss<lanes>(t, scratch, logits, row) : A(0);
    if (id == ignore_index) return 0;
    if (!in_range(id)) return not_a_number<A>();
    const A log_sum = log_of(row.sum), log_sum_exp = row.maximum + log_sum;
    A total = (1 - smoothing) * weight_of(id) * (log_sum - (logits.at(id) - row.maximum));
    if (smoothing > 0) total += smoothing / A(V) * smooth;
    if (z_loss != 0) total += z_loss * log_sum_exp * log_sum_exp;
    return total;
  }

  // How the gradient of a row is made from its softmax. Of an ignored row all of it is `factor`: 0,
  // or NaN where 0 times the loss is NaN.
  struct RowGradient {
    A factor, spread, hit;
  };
  PYMLP_DEVICE RowGradient row_gradient(RowSoftmax<A> row, int64_t id, A scale,
                                        A class_weight_sum) const {
    const bool ignored = id == ignore_index;
    if (ignored) scale = 0;
    if (!ignored && !in_range(id)) return {not_a_number<A>(), 0, 0};
    const A hit = ignored ? A(0) : scale * (1 - smoothing) * weight_of(id);
    const A spread = scale * smoothing / A(V);
    A pull = hit;
    if (smoothing > 0) pull += spread * class_weight_sum;
    if (z_loss != 0) pull += scale * 2 * z_loss * (row.maximum + log_of(row.sum));
    return {pull / row.sum, spread, hit};
  }

  // dx (V) = scale * d loss / d x; dx may be where the logits are.
  template <int lanes, class Logits, class X>
  PYMLP_DEVICE void gradient(Thread& t, const Logits& logits, RowSoftmax<A> row, int64_t id,
                             A scale, A class_weight_sum, bool capped, X* dx) const {
    constexpr int W = Logits::W, together = static_cast<int>(vectors_together(lanes, 8, W));
    constexpr int64_t step = int64_t(lanes) * W;
    const RowGradient g = row_gradient(row, id, scale, class_weight_sum);
    const bool ignored = id == ignore_index;
    for_vectors<W>(logits.row, V, t.thread % lanes, lanes, together, [&](int64_t first) {
      A x[together][W];
#pragma unroll
      for (int j = 0; j < together; ++j) logits.load(first + j * step, x[j]);
#pragma unroll
      for (int j = 0; j < together; ++j) {
        const int64_t v = first + j * step;
#pragma unroll
        for (int i = 0; i < W; ++i) {
          A d = ignored ? g.factor : g.factor * exp_of(x[j][i] - row.maximum);
          if (g.spread != 0 && in_range(v + i)) d -= g.spread * weight_of(v + i);
          if (v + i == id) d -= g.hit;
          if (capped && !ignored) {
            const A ratio = x[j][i] * inverse_softcap;
            d *= 1 - ratio * ratio;
          }
          x[j][i] = d;
        }
        store_elements(dx, v, V, x[j]);
      }
    });
  }

 private:
  // Σ_v w_v (-log p_v), element by element as the terms are: their difference to a common sum would
  // cancel.
  template <int lanes, class Logits>
  PYMLP_DEVICE A smooth_loss(Thread& t, Shared<A> scratch, const Logits& logits,
                             RowSoftmax<A> row) const {
    constexpr int W = Logits::W;
    const A log_sum = log_of(row.sum);
    double sum = 0;  // of partial sums of few terms: with many classes float32 would lose digits
    for_vectors<W>(logits.row, logits.V, t.thread % lanes, lanes, 1, [&](int64_t v) {
      A x[W];
      A few = 0;
      logits.load(v, x);
#pragma unroll
      for (int i = 0; i < W; ++i) {
        if (v + i >= 0 && v + i < logits.V) {
          few += weight_of(v + i) * (log_sum - (x[i] - row.maximum));
        }
      }
      sum += few;
    });
    return group_sum<lanes>(t, scratch, A(sum));
  }
};

}  // namespace cuda
}  // namespace pymlp
