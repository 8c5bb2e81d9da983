// loss = cross_entropy(input weightᵀ + bias, target) and, in the same pass over the logits, its
// gradients. Rows are taken a chunk at a time: logits by a product, then one kernel that reads them
// twice and leaves dlogits in their place, then dinput and dweight by products. The (N, V) array
// never exists.
#pragma once

#include "kernels/cuda/product-inl.h"
#include "kernels/cuda/totals-inl.h"

namespace pymlp {
namespace cuda {

// --- products ------------------------------------------------------------------------------------

// logits (N, V) = input weightᵀ + bias
template <class S>
struct LogitsProduct {
  using A = Accumulate<S>;
  static constexpr bool left_along_k = true, right_along_k = true;
  static constexpr bool few_tiles = false;
  int64_t M, N, K;
  const S *input, *weight, *bias;  // bias or null
  A* logits;

  PYMLP_DEVICE A left(int64_t, int64_t n, int64_t h) const { return widen(input[n * K + h]); }
  PYMLP_DEVICE A right(int64_t, int64_t h, int64_t v) const { return widen(weight[v * K + h]); }
  PYMLP_DEVICE void store(int64_t, int64_t n, int64_t v, A sum) const {
    logits[n * N + v] = sum + (bias ? widen(bias[v]) : A(0));
  }
};

// dinput (N, H) = dlogits weight
template <class S>
struct InputGradientProduct {
  using A = Accumulate<S>;
  static constexpr bool left_along_k = true, right_along_k = false;
  static constexpr bool few_tiles = false;
  int64_t M, N, K;
  const A* dlogits;
  const S* weight;
  const A* factor;
  S* dinput;

  PYMLP_DEVICE A left(int64_t, int64_t n, int64_t v) const { return dlogits[n * K + v]; }
  PYMLP_DEVICE A right(int64_t, int64_t v, int64_t h) const { return widen(weight[v * N + h]); }
  PYMLP_DEVICE void store(int64_t, int64_t n, int64_t h, A sum) const {
    narrow(scaled(sum, factor), dinput[n * N + h]);
  }
};

// dweight (V, H) = dlogitsᵀ input, and dbias as one more column.
template <class S>
struct OutputGradientProduct {
  using A = Accumulate<S>;
  static constexpr bool left_along_k = false, right_along_k = false;
  static constexpr bool few_tiles = false;
  int64_t M, N, K, H;
  const A* dlogits;
  const S* input;
  const A* factor;
  S *dweight, *dbias;

  PYMLP_DEVICE A left(int64_t, int64_t v, int64_t n) const { return dlogits[n * M + v]; }
  PYMLP_DEVICE A right(int64_t, int64_t n, int64_t h) const {
    return h < H ? widen(input[n * H + h]) : A(1);
  }
  PYMLP_DEVICE void store(int64_t, int64_t v, int64_t h, A sum) const {
    narrow(scaled(sum, factor), h < H ? dweight[v * H + h] : dbias[v]);
  }
};

// --- a chunk of rows -----------------------------------------------------------------------------

// The losses of rows first, first + 1, ... and, if wanted, dlogits in the place of their logits.
template <class X, class S, int lanes>
struct LinearCrossEntropyRows {
  using A = Accumulate<S>;
  using Group = RowGroup<lanes>;
  static constexpr int threads = Group::threads;
  static constexpr int64_t shared_bytes =
      threads / warp_size * static_cast<int64_t>(sizeof(A)) + 16 + totals_shared_bytes(threads);

  int64_t first, rows, ld;
  X* logits;      // (rows, V), rows ld apart
  const S* bias;  // (V), or null where it is already in them
  SoftmaxLoss<S> rule;
  const A* grad_output;       // for Reduction::none (N), or null: ones
  const Scalars<A>* scalars;  // null: no gradients
  LossOutput<A> output;

  PYMLP_DEVICE void operator()(Thread& t) const {
    Shared<A> scratch = t.shared<A>(t.warps);
    Totals mine{0, 0};
    for (int64_t begin = t.block * Group::count; begin < rows; begin += t.blocks * Group::count) {
      const int64_t row = begin + t.thread / lanes;
      const bool present = row < rows;  // a group without a row goes along, to meet the others
      const int64_t n = first + row, id = present ? id_at(rule.target, n) : rule.ignore_index;
      X* x = logits + (present ? row : 0) * ld;
      const LinearLogits<X, S> values{x, present ? rule.V : 0, bias, rule.softcap,
                                      rule.inverse_softcap};
      const RowSoftmax<A> softmax = row_softmax<lanes>(t, scratch, values);
      const A loss = rule.template loss<lanes>(t, scratch, values, softmax, id);
      meet(t);  // all have read the logits that one of them will overwrite
      if (!present) continue;
      if (scalars) {
        const A scale = rule.per_row && grad_output ? grad_output[n] : scalars->row_scale;
        rule.template gradient<lanes>(t, values, softmax, id, scale, scalars->class_weight_sum,
                                      rule.softcap > 0, x);
      }
      if (t.thread % lanes != 0) continue;
      if (rule.per_row) output.loss[n] = loss;
      mine.loss += loss;
      mine.weight += rule.weight_of_target(id);
    }
    output.finish(t, mine);
  }

 private:
  static PYMLP_DEVICE void meet(Thread& t) {
    if (lanes > warp_size) {
      t.barrier();
    } else {
      t.sync_warp();
    }
  }
};

// How rows are cut into chunks. Small problems are one; else a chunk has at most an eighth of the
// rows, a 24th of what eager PyTorch holds at its peak, and logits of about the size of an H100's
// second-level cache.
struct RowChunks {
  int64_t N, rows, count;

  RowChunks(int64_t N, int64_t V) : N(N), rows(larger(1, N)) {
    constexpr int64_t small = int64_t(1) << 22, large = int64_t(1) << 24, fewest = 32;
    if (N * V > small) {
      rows = larger(fewest, smaller(large / V, divide_up(N, 8)) / fewest * fewest);
    }
    count = divide_up(N, rows);
  }

  // As many rows as said.
  static RowChunks of(int64_t N, int64_t rows) {
    RowChunks chunks(N, 1);
    chunks.rows = rows;
    chunks.count = divide_up(N, rows);
    return chunks;
  }
};

template <class S>
struct LinearCrossEntropyPass {
  using A = Accumulate<S>;
  using Gradients = LinearCrossEntropyGradients<S>;
  const LinearCrossEntropy<S> p;
  RowChunks chunks;
  bool library;
  int64_t ld, blocks_per_chunk = 0, all_blocks = 0;
  A* wide_logits;  // (N, V), of our own products
  LongProduct<A> weight_product;
  S *logits, *ones;  // (chunk, ld), (chunk), of the library's
  Totals* totals;
  ScalarsPass<S> scalars;
  SumOfProducts<S> weight_sum, bias_sum;

  LinearCrossEntropyPass(Workspace& workspace, const LinearCrossEntropy<S>& p, bool gradients)
      : LinearCrossEntropyPass(workspace, p, gradients, RowChunks(p.N, p.V),
                               p.N * p.V * larger(1, p.H) >= worth_a_library) {}

  LinearCrossEntropyPass(Workspace& workspace, const LinearCrossEntropy<S>& p, bool gradients,
                         RowChunks chunks, bool worth)
      : p(p),
        chunks(chunks),
        library(worth || chunks.count > 1),
        ld(divide_up(p.V, vector_width<S>) * vector_width<S>),
        scalars(workspace, p.N, p.options.reduction) {
    with_lanes_for(p.V, [&](auto lanes) {
      blocks_per_chunk = RowGroup<lanes>::blocks(chunks.rows);
      const int64_t last = p.N - (chunks.count - 1) * chunks.rows;
      all_blocks =
          p.N == 0 ? 0 : (chunks.count - 1) * blocks_per_chunk + RowGroup<lanes>::blocks(last);
    });
    totals = workspace.take<Totals>(LossOutput<A>::totals_needed(p.options.reduction, all_blocks));
    wide_logits = workspace.take<A>(library ? 0 : p.N * p.V);
    logits = workspace.take<S>(library ? chunks.rows * ld : 0);
    ones = workspace.take<S>(library && gradients ? chunks.rows : 0);
    if (!gradients) return;
    if (!library) {
      weight_product = {workspace, p.V, p.H + 1, p.N};
      return;
    }
    weight_sum = {workspace, p.V, p.H};
    bias_sum = {workspace, 1, p.V};
  }

  // The factor of all gradients, which is multiplied in at the end; known after `run`.
  const A* common_scale() const { return &scalars.scalars->common_scale; }

  // gradients: or null. factor, input_factor: what dweight and dbias, and dinput, are multiplied
  // with: common_scale() or null.
  void run(A* loss, const Gradients* gradients, const A* factor, const A* input_factor,
           const Queue& queue) const;

 private:
  LossOutput<A> output(A* loss, int64_t chunk) const {
    const bool one_term = SoftmaxLoss<S>(p.V, p.target, p.options).one_term();
    return {p.options.reduction, one_term, loss, totals, chunk * blocks_per_chunk, all_blocks};
  }

  void clear(const Gradients& d, const Queue& queue) const {
    fill(queue, d.weight, p.V * p.H, A(0));
    if (d.bias) fill(queue, d.bias, p.V, A(0));
  }

  template <class X>
  void losses(const SoftmaxLoss<S>& rule, int64_t chunk, X* x, int64_t x_ld, const S* bias, A* loss,
              bool gradients, const Queue& queue) const {
    const int64_t first = chunk * chunks.rows, rows = smaller(chunks.rows, p.N - first);
    with_lanes_for(p.V, [&](auto lanes) {
      using Rows = LinearCrossEntropyRows<X, S, lanes>;
      launch(queue, {RowGroup<lanes>::blocks(rows)},
             Rows{first, rows, x_ld, x, bias, rule, p.grad_output,
                  gradients ? scalars.scalars : nullptr, output(loss, chunk)},
             Rows::shared_bytes);
    });
  }

  void run_direct(const SoftmaxLoss<S>& rule, A* loss, const Gradients* d, const A* factor,
                  const A* input_factor, const Queue& queue) const {
    const int64_t N = p.N, H = p.H, V = p.V;
    multiply(queue, LogitsProduct<S>{N, V, H, p.input, p.weight, p.bias, wide_logits});
    losses<A>(rule, 0, wide_logits, V, nullptr, loss, d != nullptr, queue);
    if (!d) return;
    multiply(queue,
             InputGradientProduct<S>{N, H, V, wide_logits, p.weight, input_factor, d->input});
    weight_product.run(queue, OutputGradientProduct<S>{V, H + (d->bias ? 1 : 0), N, H, wide_logits,
                                                       p.input, factor, d->weight, d->bias});
  }

  void run_library(const SoftmaxLoss<S>& rule, A* loss, const Gradients* d, const A* factor,
                   const A* input_factor, const Queue& queue) const {
    const int64_t H = p.H, V = p.V;
    if (d) fill(queue, ones, chunks.rows, A(1));
    for (int64_t chunk = 0; chunk < chunks.count; ++chunk) {
      const int64_t first = chunk * chunks.rows, rows = smaller(chunks.rows, p.N - first);
      const S* input = p.input + first * H;
      if (H > 0) {
        matmul<S>(queue, rows, V, H, {input, false, H}, {p.weight, true, H}, {logits, ld}, false);
      } else {
        fill(queue, logits, rows * ld, A(0));
      }
      losses<S>(rule, chunk, logits, ld, p.bias, loss, d != nullptr, queue);
      if (!d) continue;
      if (H > 0) {
        matmul<S>(queue, rows, H, V, {logits, false, ld}, {p.weight, false, H},
                  {d->input + first * H, H}, false);
      }
      weight_sum.add(queue, rows, logits, ld, input, H, chunk == 0, d->weight);
      if (d->bias) bias_sum.add(queue, rows, ones, 1, logits, ld, chunk == 0, d->bias);
    }
    if (!d) return;
    if (input_factor) scale(queue, p.N * H, input_factor, d->input);
    weight_sum.finish(queue, factor, d->weight);
    if (d->bias) bias_sum.finish(queue, factor, d->bias);
  }
};

template <class S>
void LinearCrossEntropyPass<S>::run(A* loss, const Gradients* gradients, const A* factor,
                                    const A* input_factor, const Queue& queue) const {
  const SoftmaxLoss<S> rule(p.V, p.target, p.options);
  if (gradients) {
    scalars.run(rule, p.N, p.options.reduction, p.grad_output, ScaleAt::end, queue);
  }
  if (p.N == 0) {
    if (gradients) clear(*gradients, queue);
  } else if (library) {
    run_library(rule, loss, gradients, factor, input_factor, queue);
  } else {
    run_direct(rule, loss, gradients, factor, input_factor, queue);
  }
  output(loss, 0).reduce(queue);
}

// Compiled once, by <type>.cu: `run` is not inline, so that it is not compiled anywhere else.
extern template struct LinearCrossEntropyPass<float>;
extern template struct LinearCrossEntropyPass<double>;
extern template struct LinearCrossEntropyPass<bfloat16>;
extern template struct LinearCrossEntropyPass<float16>;

template <class S>
struct LinearCrossEntropyKernel {
  using A = Accumulate<S>;
  LinearCrossEntropyPass<S> pass;

  LinearCrossEntropyKernel(Workspace& workspace, const LinearCrossEntropy<S>& p, bool gradients)
      : pass(workspace, p, gradients) {}

  void run(A* loss, const LinearCrossEntropyGradients<S>* gradients, const Queue& queue) const {
    pass.run(loss, gradients, pass.common_scale(), pass.common_scale(), queue);
  }
};

}  // namespace cuda
}  // namespace pymlp
