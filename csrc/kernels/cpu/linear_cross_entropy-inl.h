// loss = cross_entropy(input weightᵀ + bias, target) and, in the same pass over the logits, its
// gradients.
//
// Rows are taken a chunk at a time. First, for rows in parallel: logits, loss, dlogits in the
// logits' place, dinput = dlogits weight. Then, for columns of H in parallel: dweight += dlogitsᵀ
// input. A chunk's logits stay in the cache in between, the (N, V) array never exists, and a column
// of dweight has one owner.

template <class S>
struct LinearCrossEntropyPass {
  using A = Accumulate<S>;
  const LinearCrossEntropy<S>& problem;
  int64_t N, H, V, chunk;
  A *weight_scratch, *bias_scratch, *class_weight_scratch;
  const A *weight, *bias;  // as `prepare` leaves them
  A* weight_transposed;    // (H, V)
  A* logits;               // (chunk, V), then dlogits
  A* losses;               // (N), unless the caller wants them

  // width: elements a row of a chunk needs in the caches.
  LinearCrossEntropyPass(Workspace& workspace, const LinearCrossEntropy<S>& p, int64_t width)
      : problem(p), N(p.N), H(p.H), V(p.V), chunk(larger(1, rows_per_chunk(N, width))) {
    weight_scratch = workspace.take<A>(scratch_size<S>(V * H));
    bias_scratch = workspace.take<A>(scratch_size<S>(V));
    class_weight_scratch = workspace.take<A>(scratch_size<S>(V));
    weight = readable(problem.weight, weight_scratch);
    bias = readable(problem.bias, bias_scratch);
    weight_transposed = workspace.take<A>(H * V);
    logits = workspace.take<A>(chunk * V * (p.options.softcap > 0 ? 2 : 1));
    losses = workspace.take<A>(p.options.reduction == Reduction::none ? 0 : N);
  }

  LossRule<S> prepare(A* loss) {
    widened(problem.weight, V * H, weight_scratch);
    widened(problem.bias, V, bias_scratch);
    return {problem, class_weight_scratch, losses, loss};
  }

  // A column block of weight, as rows of weight_transposed.
  void transpose_columns(int64_t block, const ColumnView<const A>& from) const {
    const int64_t h = from.columns.begin(block);
    transpose(V, from.columns.width(block), from[block], from.ld(), weight_transposed + h * V, V);
  }

  int64_t row_cost(bool gradients) const { return V * ((gradients ? 2 : 1) * H + 2 * exp_cost); }

  // Examples [begin, end) of the chunk that starts at `first`; input, dinput: rows of that chunk.
  // Whether gradients are wanted dinput does not say: with H = 0 it may be null.
  void rows(const LossRule<S>& rule, int64_t first, int64_t begin, int64_t end, bool gradients,
            const A* input, A* dinput) const {
    for_chunks(begin, end, row_block, [&](int64_t b, int64_t e) {
      A* x = logits + b * V;
      logits_of_rows(e - b, input + b * H, H, x);
      losses_of_rows(rule, first + b, e - b, x, gradients);
      if (gradients) gemm<A>(e - b, H, V, {x, V, 1}, weight, H, dinput + b * H, H, false);
    });
  }

  // x (count, V) = input weightᵀ + bias; input: rows `ld` apart.
  void logits_of_rows(int64_t count, const A* input, int64_t ld, A* x) const {
    for (int64_t n = 0; bias && n < count; ++n) {
      for (int64_t v = 0; v < V; ++v) x[n * V + v] = bias[v];
    }
    gemm<A>(count, V, H, {input, ld, 1}, weight_transposed, V, x, V, bias != nullptr);
  }

  // The losses of examples n, n+1, ... and their dlogits in the place of their logits x (count, V).
  void losses_of_rows(const LossRule<S>& rule, int64_t n, int64_t count, A* x,
                      bool gradient) const {
    if (rule.softmax.softcap > 0) rule.softmax.cap(x, count * V);
    RowSoftmax<A> softmax[row_block];
    row_softmax(x, count, V, softmax);
    for (int64_t i = 0; i < count; ++i) row(rule, n + i, softmax[i], x + i * V, gradient);
  }

  void row(const LossRule<S>& rule, int64_t n, RowSoftmax<A> softmax, A* x, bool gradient) const {
    const int64_t target = problem.target[n];
    rule.losses[n] = rule.softmax.loss(x, softmax, target);
    if (!gradient) return;
    const bool capped = rule.softmax.softcap > 0;
    A* caps = x + chunk * V;
    if (capped) std::memcpy(caps, x, V * sizeof(A));
    rule.softmax.gradient(x, softmax, target, rule.row_scale(n), x);
    if (capped) rule.softmax.cap_gradient(caps, V, x);
  }

  // Adds (first chunk: sets) a column block of dweight for a chunk of `count` rows of input, given
  // from the block's first column on with rows `ld` apart, and all of dbias with the first block.
  void columns(int64_t block, int64_t count, bool add, const A* input, int64_t ld,
               const ColumnView<A>& dweight, A* dbias) const {
    gemm<A>(V, dweight.columns.width(block), count, {logits, 1, V}, input, ld, dweight[block],
            dweight.ld(), add);
    const A one = 1;
    if (dbias && block == 0) gemm<A>(1, V, count, {&one, 0, 0}, logits, V, dbias, V, add);
  }
};

template <class S>
struct LinearCrossEntropyKernel {
  using A = Accumulate<S>;
  using Gradients = LinearCrossEntropyGradients<S>;
  LinearCrossEntropyPass<S> pass;
  A *input_scratch, *dinput_scratch, *dweight_scratch, *dbias_scratch;

  LinearCrossEntropyKernel(Workspace& workspace, const LinearCrossEntropy<S>& p, bool gradients)
      : pass(workspace, p, p.V + 2 * p.H) {
    input_scratch = workspace.take<A>(scratch_size<S>(pass.chunk * p.H));
    dinput_scratch = workspace.take<A>(gradients ? scratch_size<S>(pass.chunk * p.H) : 0);
    dweight_scratch = workspace.take<A>(gradients ? scratch_size<S>(p.V * p.H) : 0);
    dbias_scratch = workspace.take<A>(gradients ? scratch_size<S>(p.V) : 0);
  }

  void run(A* loss, const Gradients* gradients, const Parallel& parallel) {
    const LinearCrossEntropy<S>& p = pass.problem;
    const auto rule = pass.prepare(loss);
    const ColumnBlocks columns(p.H, p.N);
    const ColumnView<const A> weight{columns, pass.weight, p.V, false};
    columns.run(parallel, "transpose", p.V,
                [&](int64_t block) { pass.transpose_columns(block, weight); });
    const Gradients none{};
    const Gradients& d = gradients ? *gradients : none;
    A* dweight = gradients ? writable(d.weight, dweight_scratch) : nullptr;
    A* dbias = d.bias ? writable(d.bias, dbias_scratch) : nullptr;
    if (gradients && p.N == 0) {
      fill(dweight, p.V * p.H, A(0));
      if (dbias) fill(dbias, p.V, A(0));
    }
    for_chunks(0, p.N, pass.chunk, [&](int64_t first, int64_t last) {
      const S* input = p.input + first * p.H;
      A* dinput = gradients ? writable(d.input + first * p.H, dinput_scratch) : nullptr;
      const A* x = is_wide<S> ? widened(input, 0, input_scratch) : input_scratch;
      parallel.run({"rows", last - first, pass.row_cost(gradients != nullptr)},
                   [&](int64_t begin, int64_t end) {
                     const int64_t offset = begin * p.H, size = (end - begin) * p.H;
                     widened(input + offset, size, input_scratch + scratch_size<S>(offset));
                     pass.rows(rule, first, begin, end, gradients != nullptr, x, dinput);
                     if (gradients == nullptr) return;
                     scale(dinput + offset, size, rule.common_scale);
                     narrow(dinput + offset, size, d.input + first * p.H + offset);
                   });
      if (gradients == nullptr) return;
      columns.run(parallel, "columns", (last - first) * p.V, [&](int64_t block) {
        pass.columns(block, last - first, first > 0, x + columns.begin(block), p.H,
                     {columns, dweight, p.V, false}, dbias);
      });
    });
    rule.reduce(loss);
    if (dweight) finish(dweight, p.V * p.H, rule.common_scale, d.weight);
    if (dbias) finish(dbias, p.V, rule.common_scale, d.bias);
  }
};
