// Sums over all examples: the loss and its normaliser, in float64, block by block and then over the
// blocks' sums in order.
#pragma once

#include "kernels/cuda/softmax-inl.h"

namespace pymlp {
namespace cuda {

// The sums over a block of rows.
struct Totals {
  double loss, weight;  // weight: Σ w_target over the tokens that count
};

// Every thread gets the block's sum of what each thread has.
PYMLP_DEVICE Totals block_totals(Thread& t, Totals mine) {
  Shared<double> scratch = t.shared<double>(t.warps);
  const double loss = block_sum(t, scratch, mine.loss);
  return {loss, block_sum(t, scratch, mine.weight)};
}

constexpr int64_t totals_shared_bytes(int threads) { return threads / warp_size * 8; }

// The divisor of the sum of losses.
PYMLP_DEVICE double normalizer_of(Reduction reduction, double weight) {
  return reduction == Reduction::mean ? weight : 1;
}

// one_term: whether the losses have no other term than that of their targets. A mean over no weight
// is undefined for that term, whatever the others are.
template <class A>
PYMLP_DEVICE A reduced_loss(Reduction reduction, bool one_term, Totals totals) {
  const double normalizer = normalizer_of(reduction, totals.weight);
  return normalizer == 0 && !one_term ? not_a_number<A>() : A(totals.loss / normalizer);
}

// loss = the reduction of the totals of `count` blocks.
template <class A>
struct ReduceLosses {
  static constexpr int threads = 512;
  Reduction reduction;
  bool one_term;
  int64_t count;
  const Totals* totals;
  A* loss;

  PYMLP_DEVICE void operator()(Thread& t) const {
    Totals mine{0, 0};
    for (int64_t i = t.thread; i < count; i += threads) {
      mine.loss += totals[i].loss;
      mine.weight += totals[i].weight;
    }
    const Totals all = block_totals(t, mine);
    if (t.thread == 0) *loss = reduced_loss<A>(reduction, one_term, all);
  }
};

// The end of each block of a kernel that computes losses: its totals, or if it is the only block
// already the loss.
template <class A>
struct LossOutput {
  Reduction reduction;
  bool one_term;
  A* loss;         // (N) for Reduction::none, else (1)
  Totals* totals;  // (blocks), of a kernel's own number of the first block on
  int64_t first_block, all_blocks;

  static int64_t totals_needed(Reduction reduction, int64_t blocks) {
    return reduction == Reduction::none ? 0 : blocks;
  }

  PYMLP_DEVICE void finish(Thread& t, Totals mine) const {
    if (reduction == Reduction::none) return;
    const Totals all = block_totals(t, mine);
    if (t.thread != 0) return;
    if (all_blocks == 1) {
      *loss = reduced_loss<A>(reduction, one_term, all);
    } else {
      totals[first_block + t.block] = all;
    }
  }

  // After the kernel. No block at all leaves the sum of nothing.
  void reduce(const Queue& queue) const {
    if (reduction == Reduction::none || all_blocks == 1) return;
    launch(queue, {1}, ReduceLosses<A>{reduction, one_term, all_blocks, totals, loss},
           totals_shared_bytes(ReduceLosses<A>::threads));
  }
};

// --- Scalars -------------------------------------------------------------------------------------

// The place of grad_output and the mean's normaliser: in the gradient of each row, or in a factor
// for the end.
enum class ScaleAt { rows, end };

template <class S>
struct MakeScalars {
  using A = Accumulate<S>;
  static constexpr int threads = 512;
  static constexpr int64_t rows_per_block = 16384, most_blocks = 256;

  SoftmaxLoss<S> rule;
  int64_t N;
  Reduction reduction;
  const A* grad_output;  // or null: ones
  ScaleAt scale_at;
  double* weights;  // (blocks)
  Scalars<A>* scalars;
  bool finishes;  // the second launch, of one block, adds up what the first one's blocks found
  int64_t weight_count;

  static int64_t blocks(int64_t N, Reduction reduction) {
    if (reduction != Reduction::mean) return 1;
    return larger(1, smaller(divide_up(N, rows_per_block), most_blocks));
  }
  static constexpr int64_t shared_bytes = totals_shared_bytes(threads);

  PYMLP_DEVICE void operator()(Thread& t) const {
    Shared<double> scratch = t.shared<double>(t.warps);
    double mine = 0;
    if (finishes) {
      for (int64_t i = t.thread; i < weight_count; i += threads) mine += weights[i];
    } else if (reduction == Reduction::mean) {
      for (int64_t n = t.block * threads + t.thread; n < N; n += t.blocks * threads) {
        mine += rule.weight_of_target(id_at(rule.target, n));
      }
    }
    const double weight = block_sum(t, scratch, mine);
    if (t.blocks > 1) {
      if (t.thread == 0) weights[t.block] = weight;
      return;
    }
    double class_weight_sum = 0;
    if (rule.class_weight) {
      for (int64_t v = t.thread; v < rule.V; v += threads) {
        class_weight_sum += rule.weight_of(v);
      }
      class_weight_sum = block_sum(t, scratch, class_weight_sum);
    } else {
      class_weight_sum = double(rule.V);
    }
    if (t.thread == 0) *scalars = result(weight, A(class_weight_sum));
  }

 private:
  PYMLP_DEVICE Scalars<A> result(double weight, A class_weight_sum) const {
    if (reduction == Reduction::none) return {1, class_weight_sum, 1, 1};
    const double normalizer = normalizer_of(reduction, weight);
    const A factor = A((grad_output ? grad_output[0] : A(1)) / normalizer);
    // The factor of a mean over nothing is infinite, of one over NaN it is NaN: rows that are
    // ignored must not meet it.
    const bool finite = factor - factor == 0;
    const bool at_rows = scale_at == ScaleAt::rows || !finite;
    return {normalizer, class_weight_sum, at_rows ? factor : A(1), at_rows ? A(1) : factor};
  }
};

// Scratch for the scalars and how to compute them.
template <class S>
struct ScalarsPass {
  using A = Accumulate<S>;
  Scalars<A>* scalars;
  double* weights;

  ScalarsPass(Workspace& workspace, int64_t N, Reduction reduction)
      : scalars(workspace.take<Scalars<A>>(1)),
        weights(workspace.take<double>(MakeScalars<S>::blocks(N, reduction))) {}

  void run(const SoftmaxLoss<S>& rule, int64_t N, Reduction reduction, const A* grad_output,
           ScaleAt scale_at, const Queue& queue) const {
    const int64_t blocks = MakeScalars<S>::blocks(N, reduction);
    MakeScalars<S> kernel{rule,    N,       reduction, grad_output, scale_at,
                          weights, scalars, false,     blocks};
    launch(queue, {blocks}, kernel, kernel.shared_bytes);
    if (blocks == 1) return;
    kernel.finishes = true;
    launch(queue, {1}, kernel, kernel.shared_bytes);
  }
};

}  // namespace cuda
}  // namespace pymlp
