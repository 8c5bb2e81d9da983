// loss = cross_entropy(input, target), row by row. The forward keeps two numbers a row
// (RowSoftmax); the backward recomputes exp from them, so that no (N, V) array is held in between.

// What both directions need: options, and room to widen a chunk of rows of a 16-bit input.
template <class S>
struct CrossEntropyPass {
  using A = Accumulate<S>;
  const CrossEntropy<S>& problem;
  int64_t N, V, chunk;
  A *class_weight_scratch, *input_scratch;

  CrossEntropyPass(Workspace& workspace, const CrossEntropy<S>& p)
      : problem(p), N(p.N), V(p.V), chunk(is_wide<S> ? larger(1, N) : rows_per_chunk(N, V)) {
    class_weight_scratch = workspace.take<A>(scratch_size<S>(V));
    input_scratch = workspace.take<A>(scratch_size<S>(chunk * V));
  }

  SoftmaxLoss<A> softmax_loss() const { return {V, problem.options, class_weight_scratch}; }

  // body(n, x) with x the widened row n, in parallel.
  template <class Body>
  void for_rows(const Parallel& parallel, const Body& body) const {
    for_chunks(N, chunk, [&](int64_t first, int64_t last) {
      parallel.run(last - first, grain_for(2 * exp_cost * V), [&](int64_t begin, int64_t end) {
        for (int64_t n = first + begin; n < first + end; ++n) {
          body(n,
               widened(problem.input + n * V, V, input_scratch + scratch_size<S>((n - first) * V)));
        }
      });
    });
  }
};

template <class S>
struct CrossEntropyForward {
  using A = Accumulate<S>;
  CrossEntropyPass<S> pass;
  A* losses;  // (N), unless the caller wants them

  CrossEntropyForward(Workspace& workspace, const CrossEntropy<S>& p) : pass(workspace, p) {
    losses = workspace.take<A>(p.options.reduction == Reduction::none ? 0 : p.N);
  }

  void run(A* loss, A* softmax, const Parallel& parallel) {
    const CrossEntropy<S>& p = pass.problem;
    const SoftmaxLoss<A> rule = pass.softmax_loss();
    A* row_loss = p.options.reduction == Reduction::none ? loss : losses;
    pass.for_rows(parallel, [&](int64_t n, const A* x) {
      const RowSoftmax<A> row = row_softmax(x, pass.V);
      softmax[2 * n] = row.maximum;
      softmax[2 * n + 1] = row.sum;
      const int64_t target = p.target[n];
      row_loss[n] = target == rule.ignore_index ? A(0) : rule.loss(x, row, target);
    });
    const bool mean = p.options.reduction == Reduction::mean;
    reduce_losses(p.options.reduction, row_loss, p.N, mean ? rule.total_weight(p.target, p.N) : 1,
                  loss);
  }
};

template <class S>
struct CrossEntropyBackward {
  using A = Accumulate<S>;
  CrossEntropyPass<S> pass;
  A* dinput_scratch;

  CrossEntropyBackward(Workspace& workspace, const CrossEntropy<S>& p) : pass(workspace, p) {
    dinput_scratch = workspace.take<A>(scratch_size<S>(pass.chunk * pass.V));
  }

  void run(const A* softmax, const A* grad_output, S* dinput, const Parallel& parallel) {
    const CrossEntropy<S>& p = pass.problem;
    const int64_t V = pass.V;
    const SoftmaxLoss<A> rule = pass.softmax_loss();
    const bool per_row = p.options.reduction == Reduction::none;
    A shared = per_row ? A(0) : grad_output[0];
    if (p.options.reduction == Reduction::mean)
      shared = A(shared / rule.total_weight(p.target, p.N));
    pass.for_rows(parallel, [&](int64_t n, const A* x) {
      A* dx = writable(dinput + n * V, dinput_scratch + scratch_size<S>(n % pass.chunk * V));
      const int64_t target = p.target[n];
      if (target == rule.ignore_index) {
        fill(dx, V, A(0));
      } else {
        const RowSoftmax<A> row{softmax[2 * n], softmax[2 * n + 1]};
        rule.gradient(x, row, target, per_row ? grad_output[n] : shared, dx);
      }
      narrow(dx, V, dinput + n * V);
    });
  }
};
