// loss = cross_entropy(input, target), a group of threads to a row. The forward reads the input
// once and keeps two numbers a row (RowSoftmax); the backward reads it once more, recomputes exp
// and writes the gradient.
#pragma once

#include "kernels/cuda/totals-inl.h"

namespace pymlp {
namespace cuda {

template <class S, int lanes>
struct CrossEntropyForwardRows {
  using A = Accumulate<S>;
  using Group = RowGroup<lanes>;
  static constexpr int threads = Group::threads;
  static constexpr int64_t shared_bytes =
      threads / warp_size * static_cast<int64_t>(sizeof(A)) + 16 + totals_shared_bytes(threads);

  int64_t N, V;
  const S* input;
  SoftmaxLoss<S> rule;
  A* softmax;  // (N, 2)
  LossOutput<A> output;

  PYMLP_DEVICE void operator()(Thread& t) const {
    Shared<A> scratch = t.shared<A>(t.warps);
    Totals mine{0, 0};
    for (int64_t first = t.block * Group::count; first < N; first += t.blocks * Group::count) {
      const int64_t n = first + t.thread / lanes;
      const bool present = n < N;  // a group without a row goes along, to meet the others
      const int64_t id = present ? id_at(rule.target, n) : rule.ignore_index;
      const PlainLogits<S> logits{input + (present ? n : 0) * V, present ? V : 0};
      const RowSoftmax<A> row = row_softmax<lanes>(t, scratch, logits);
      const A loss = rule.template loss<lanes>(t, scratch, logits, row, id);
      if (!present || t.thread % lanes != 0) continue;
      softmax[2 * n] = row.maximum;
      softmax[2 * n + 1] = row.sum;
      if (rule.per_row) output.loss[n] = loss;
      mine.loss += loss;
      mine.weight += rule.weight_of_target(id);
    }
    output.finish(t, mine);
  }
};

template <class S, int lanes>
struct CrossEntropyBackwardRows {
  using A = Accumulate<S>;
  using Group = RowGroup<lanes>;
  static constexpr int threads = Group::threads;

  int64_t N, V;
  const S* input;
  SoftmaxLoss<S> rule;
  const A* softmax;      // (N, 2)
  const A* grad_output;  // (N) for Reduction::none
  const Scalars<A>* scalars;
  S* dinput;  // (N, V)

  PYMLP_DEVICE void operator()(Thread& t) const {
    for (int64_t n = t.block * Group::count + t.thread / lanes; n < N;
         n += t.blocks * Group::count) {
      const RowSoftmax<A> row{softmax[2 * n], softmax[2 * n + 1]};
      const A scale = rule.per_row ? grad_output[n] : scalars->row_scale;
      rule.template gradient<lanes>(t, PlainLogits<S>{input + n * V, V}, row, id_at(rule.target, n),
                                    scale, scalars->class_weight_sum, false, dinput + n * V);
    }
  }
};

template <class S>
struct CrossEntropyForward {
  using A = Accumulate<S>;
  const CrossEntropy<S>& problem;
  int64_t blocks = 0;
  Totals* totals;

  // most_blocks: they take all rows in turns.
  CrossEntropyForward(Workspace& workspace, const CrossEntropy<S>& p,
                      int64_t most_blocks = most_row_blocks)
      : problem(p) {
    with_lanes_for(p.V, [&](auto lanes) { blocks = RowGroup<lanes>::blocks(p.N, most_blocks); });
    totals = workspace.take<Totals>(LossOutput<A>::totals_needed(p.options.reduction, blocks));
  }

  void run(A* loss, A* softmax, const Queue& queue) const {
    const CrossEntropy<S>& p = problem;
    const SoftmaxLoss<S> rule(p.V, p.target, p.options);
    const LossOutput<A> output{p.options.reduction, rule.one_term(), loss, totals, 0, blocks};
    with_lanes_for(p.V, [&](auto lanes) {
      using Rows = CrossEntropyForwardRows<S, lanes>;
      launch(queue, {blocks}, Rows{p.N, p.V, p.input, rule, softmax, output}, Rows::shared_bytes);
    });
    output.reduce(queue);
  }
};

template <class S>
struct CrossEntropyBackward {
  using A = Accumulate<S>;
  const CrossEntropy<S>& problem;
  ScalarsPass<S> scalars;
  int64_t most_blocks;

  CrossEntropyBackward(Workspace& workspace, const CrossEntropy<S>& p,
                       int64_t most_blocks = most_row_blocks)
      : problem(p), scalars(workspace, p.N, p.options.reduction), most_blocks(most_blocks) {}

  void run(const A* softmax, const A* grad_output, S* dinput, const Queue& queue) const {
    const CrossEntropy<S>& p = problem;
    if (p.N == 0) return;
    const SoftmaxLoss<S> rule(p.V, p.target, p.options);
    scalars.run(rule, p.N, p.options.reduction, grad_output, ScaleAt::rows, queue);
    with_lanes_for(p.V, [&](auto lanes) {
      launch(queue, {RowGroup<lanes>::blocks(p.N, most_blocks)},
             CrossEntropyBackwardRows<S, lanes>{p.N, p.V, p.input, rule, softmax, grad_output,
                                                scalars.scalars, dinput});
    });
  }
};

}  // namespace cuda
}  // namespace pymlp
