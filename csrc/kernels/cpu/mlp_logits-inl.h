// The logits of many contexts, for inference: with the projection tables of their distinct tokens
// the hidden layer is T row additions an example (Devlin et al. 2014).

template <class A>
struct MlpLogitsKernel {
  const MlpLogits<A>& problem;
  EmbedLinearTanhPass<A> first_layer;
  int64_t N, H, V;
  A* weight_transposed;  // (H, V)
  A* hidden;             // (N, H)
  A* direct_transposed;  // (K, V), K = T * E
  A* x;                  // (N, K): the embeddings side by side, where they go to the logits

  MlpLogitsKernel(Workspace& workspace, const MlpLogits<A>& p)
      : problem(p), first_layer(workspace, p.hidden), N(p.hidden.N), H(p.hidden.H), V(p.hidden.V) {
    weight_transposed = workspace.take<A>(H * V);
    hidden = workspace.take<A>(N * H);
    direct_transposed = workspace.take<A>(direct_width() * V);
    x = workspace.take<A>(N * direct_width());
  }

  void run(A* logits, const Parallel& parallel) {
    first_layer.prepare(false, parallel);
    const ColumnBlocks& columns = first_layer.columns;
    columns.run(parallel, "project", first_layer.project_cost() + V, [&](int64_t block) {
      const int64_t h = columns.begin(block);
      first_layer.project(block);
      transpose(V, columns.width(block), problem.weight + h, H, weight_transposed + h * V, V);
    });
    if (problem.direct) transpose_direct(parallel);
    parallel.run({"logits", N, H * (first_layer.T + exp_cost) + (H + direct_width()) * V},
                 [&](int64_t begin, int64_t end) { rows(begin, end, logits); });
  }

 private:
  int64_t direct_width() const { return problem.direct ? first_layer.K : 0; }

  void transpose_direct(const Parallel& parallel) {
    const int64_t K = direct_width();
    parallel.run({"project", V, K}, [this, K](int64_t v0, int64_t v1) {
      transpose(v1 - v0, K, problem.direct + v0 * K, K, direct_transposed + v0, V);
    });
  }

  // Adds what the embeddings give to the logits of rows [begin, end).
  void add_direct(int64_t begin, int64_t end, A* out) const {
    const int64_t K = direct_width(), T = first_layer.T, E = first_layer.E;
    for (int64_t i = begin * T; i < end * T; ++i) {
      const A* const row = problem.hidden.embedding + problem.hidden.tokens[i] * E;
      std::memcpy(x + i * E, row, static_cast<size_t>(E) * sizeof(A));
    }
    gemm<A>(end - begin, V, K, {x + begin * K, K, 1}, direct_transposed, V, out, V, true);
  }

  void rows(int64_t begin, int64_t end, A* logits) const {
    const ColumnBlocks& columns = first_layer.columns;
    for_chunks(begin, end, row_block, [&](int64_t b, int64_t e) {
      for (int64_t block = 0; block < columns.count; ++block) {
        first_layer.hidden_columns(block, b, e, hidden + b * H + columns.begin(block), H);
      }
      A* out = logits + b * V;
      for (int64_t n = 0; problem.bias && n < e - b; ++n) {
        std::memcpy(out + n * V, problem.bias, static_cast<size_t>(V) * sizeof(A));
      }
      gemm<A>(e - b, V, H, {hidden + b * H, H, 1}, weight_transposed, V, out, V,
              problem.bias != nullptr);
      if (problem.direct) add_direct(b, e, out);
    });
  }
};

// One logit of each row: that of its target.
template <class A>
struct MlpTargetLogitsKernel {
  const MlpLogits<A>& problem;
  EmbedLinearTanhPass<A> first_layer;
  int64_t N, H;
  A* hidden;  // (N, H)

  MlpTargetLogitsKernel(Workspace& workspace, const MlpLogits<A>& p)
      : problem(p), first_layer(workspace, p.hidden), N(p.hidden.N), H(p.hidden.H) {
    hidden = workspace.take<A>(N * H);
  }

  void run(Ids targets, A* logits, const Parallel& parallel) {
    first_layer.prepare(false, parallel);
    const ColumnBlocks& columns = first_layer.columns;
    columns.run(parallel, "project", first_layer.project_cost(),
                [this](int64_t block) { first_layer.project(block); });
    parallel.run({"logits", N, H * (first_layer.T + exp_cost + 1)},
                 [this, targets, logits](int64_t begin, int64_t end) {
                   for (int64_t n = begin; n < end; ++n) logits[n] = logit(n, targets[n]);
                 });
  }

 private:
  A logit(int64_t n, int64_t target) const {
    const ColumnBlocks& columns = first_layer.columns;
    A* const row = hidden + n * H;
    for (int64_t block = 0; block < columns.count; ++block) {
      first_layer.hidden_columns(block, n, n + 1, row + columns.begin(block), H);
    }
    A sum = dot(H, row, problem.weight + target * H);
    if (problem.bias) sum += problem.bias[target];
    const int64_t T = first_layer.T, E = first_layer.E;
    for (int64_t t = 0; problem.direct && t < T; ++t) {
      sum += dot(E, problem.hidden.embedding + problem.hidden.tokens[n * T + t] * E,
                 problem.direct + (target * T + t) * E);
    }
    return sum;
  }

  static A dot(int64_t n, const A* a, const A* b) {
    Vec<A> sum = constant(A(0));
    for_vectors<A>(0, n, [&](int64_t i, auto lanes) {
      sum = fma(load(a + i, lanes), load(b + i, lanes), sum);
    });
    return sum.reduce_add();
  }
};
