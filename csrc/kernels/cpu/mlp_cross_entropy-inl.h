// The whole model, its loss and the gradients of all parameters: embed_linear_tanh and
// linear_cross_entropy joined chunk by chunk, so that the hidden layer and its gradient never leave
// the caches.

template <class S>
struct MlpCrossEntropyKernel {
  using A = Accumulate<S>;
  using Gradients = MlpCrossEntropyGradients<S>;
  EmbedLinearTanhPass<S> first_layer;
  LinearCrossEntropyPass<S> last_layer;
  int64_t N, H;
  A *weight_transposed, *table;
  A *hidden, *dhidden;  // (chunk, H)
  A *dembedding, *dweight, *dbias, *doutput_weight, *doutput_bias;

  MlpCrossEntropyKernel(Workspace& workspace, const MlpCrossEntropy<S>& p, bool gradients)
      : first_layer(workspace, p.hidden),
        last_layer(workspace, p.output),
        N(p.hidden.N),
        H(p.hidden.H) {
    const int64_t E = first_layer.E, K = first_layer.K, V = last_layer.V;
    weight_transposed = workspace.take<A>(K * H);
    table = workspace.take<A>(first_layer.max_rows() * H);
    hidden = workspace.take<A>(last_layer.chunk * H);
    if (!gradients) return;
    dhidden = workspace.take<A>(last_layer.chunk * H);
    first_layer.take_backward_scratch(workspace);
    dembedding = workspace.take<A>(scratch_size<S>(first_layer.V * E));
    dweight = workspace.take<A>(scratch_size<S>(H * K));
    dbias = workspace.take<A>(scratch_size<S>(H));
    doutput_weight = workspace.take<A>(scratch_size<S>(V * H));
    doutput_bias = workspace.take<A>(scratch_size<S>(V));
  }

  void run(A* loss, const Gradients* gradients, const Parallel& parallel) {
    first_layer.prepare(gradients != nullptr, parallel);
    const auto rule = last_layer.prepare(loss);
    if (gradients) place(*gradients);
    for_columns(parallel, "transpose", H, first_layer.K + last_layer.V,
                [&](int64_t h0, int64_t h1) {
                  first_layer.transpose_columns(h0, h1, weight_transposed);
                  last_layer.transpose_columns(h0, h1);
                });
    first_layer.project(weight_transposed, table, parallel);
    for_chunks(N, last_layer.chunk, [&](int64_t first, int64_t last) {
      chunk_rows(rule, first, last, gradients != nullptr, parallel);
      if (gradients) chunk_columns(first, last, parallel);
    });
    const LinearCrossEntropy<S>& output = last_layer.problem;
    reduce_losses(output.options.reduction, rule.losses, N, rule.normalizer, loss);
    if (gradients) finish_gradients(*gradients, rule.common_scale, parallel);
  }

 private:
  // Gradients are computed in their places, or in scratch for 16-bit types.
  void place(const Gradients& d) {
    dembedding = writable(d.hidden.embedding, dembedding);
    dweight = writable(d.hidden.weight, dweight);
    dbias = d.hidden.bias ? writable(d.hidden.bias, dbias) : nullptr;
    doutput_weight = writable(d.output.weight, doutput_weight);
    doutput_bias = d.output.bias ? writable(d.output.bias, doutput_bias) : nullptr;
    if (N == 0) clear();
  }

  // What chunk_columns sets, if there is a chunk.
  void clear() const {
    fill(dweight, H * first_layer.K, A(0));
    if (dbias) fill(dbias, H, A(0));
    fill(doutput_weight, last_layer.V * H, A(0));
    if (doutput_bias) fill(doutput_bias, last_layer.V, A(0));
  }

  template <class Rule>
  void chunk_rows(const Rule& rule, int64_t first, int64_t last, bool gradients,
                  const Parallel& parallel) const {
    const int64_t cost = last_layer.row_cost(gradients) + H * (first_layer.T + exp_cost);
    parallel.run({"rows", last - first, cost}, [&](int64_t begin, int64_t end) {
      first_layer.hidden_rows(table, first + begin, first + end, hidden + begin * H);
      last_layer.rows(rule, first, begin, end, gradients, hidden, dhidden);
    });
  }

  // The columns of all gradients but dembedding; complete after the last chunk.
  void chunk_columns(int64_t first, int64_t last, const Parallel& parallel) const {
    const bool complete = last == N;
    const int64_t cost = (last - first) * (last_layer.V + first_layer.T + 1) +
                         (complete ? first_layer.finish_cost() : 0);
    for_columns(parallel, "columns", H, cost, [&](int64_t h0, int64_t h1) {
      last_layer.columns(h0, h1, last - first, first > 0, hidden, doutput_weight, doutput_bias);
      first_layer.scatter_columns(hidden, dhidden, first, last, h0, h1);
      if (complete) first_layer.finish_columns(h0, h1, dweight, dbias);
    });
  }

  void finish_gradients(const Gradients& d, A factor, const Parallel& parallel) const {
    const int64_t V = last_layer.V;
    first_layer.finish_embedding(dembedding, parallel);
    if (d.factor) {
      *d.factor = factor;
      factor = 1;
    }
    finish(dembedding, first_layer.V * first_layer.E, factor, d.hidden.embedding);
    finish(dweight, H * first_layer.K, factor, d.hidden.weight);
    if (dbias) finish(dbias, H, factor, d.hidden.bias);
    finish(doutput_weight, V * H, factor, d.output.weight);
    if (doutput_bias) finish(doutput_bias, V, factor, d.output.bias);
  }
};
