// loss = cross_entropy(input, target), row by row. The forward keeps two numbers a row
// (RowSoftmax); the backward recomputes exp from them, so that no (N, V) array is held in between.

// The members that both directions need: options, and room to widen a chunk of 16-bit rows.
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

  // body(n, count, x) in parallel, with x (count, V) the widened rows n, n+1, ..., at most
  // row_block of them.
  template <class Body>
  void for_rows(const Parallel& parallel, const Body& body) const {
    for_chunks(0, N, chunk, [&](int64_t first, int64_t last) {
      parallel.run({"rows", last - first, 2 * exp_cost * V}, [&](int64_t begin, int64_t end) {
        for (int64_t n = first + begin; n < first + end; n += row_block) {
          const int64_t count = smaller(row_block, first + end - n);
          A* scratch = input_scratch + scratch_size<S>((n - first) * V);
          body(n, count, widened(problem.input + n * V, count * V, scratch));
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
    pass.for_rows(parallel, [&](int64_t n, int64_t count, const A* x) {
      RowSoftmax<A> rows[row_block];
      row_softmax(x, count, pass.V, rows);
      for (int64_t i = 0; i < count; ++i) {
        softmax[2 * (n + i)] = rows[i].maximum;
        softmax[2 * (n + i) + 1] = rows[i].sum;
        row_loss[n + i] = rule.loss(x + i * pass.V, rows[i], p.target[n + i]);
      }
    });
    const bool mean = p.options.reduction == Reduction::mean;
    rule.reduce(p.options.reduction, row_loss, p.N, mean ? rule.total_weight(p.target, p.N) : 1,
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
    pass.for_rows(parallel, [&](int64_t begin, int64_t count, const A* x) {
      for (int64_t n = begin; n < begin + count; ++n, x += V) {
        A* dx = writable(dinput + n * V, dinput_scratch + scratch_size<S>(n % pass.chunk * V));
        const RowSoftmax<A> row{softmax[2 * n], softmax[2 * n + 1]};
        rule.gradient(x, row, p.target[n], per_row ? grad_output[n] : shared, dx);
        narrow(dx, V, dinput + n * V);
      }
    });
  }
};
