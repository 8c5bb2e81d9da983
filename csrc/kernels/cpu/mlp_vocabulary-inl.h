// mlp_cross_entropy where the vocabulary is large, or x goes to the output too or is dropped out,
// or the gradient of the embedding is sparse, or the output layer is sampled (divides_vocabulary):
// x gathered, the hidden layer by rows, the output layer by vocabulary.

template <class S>
inline bool is_by_vocabulary(const MlpCrossEntropy<S>& p) {
  const bool samples = p.output.V != p.hidden.V;
  const bool gathers = p.direct || p.dropout.input || p.sparse.tokens || samples;
  return divides_vocabulary(p.output.V, p.hidden.H, gathers);
}

template <class S>
struct MlpVocabularyKernel {
  using A = Accumulate<S>;
  using Gradients = MlpCrossEntropyGradients<S>;
  const MlpCrossEntropy<S>& problem;
  int64_t N, V, H, K, direct_width;
  VocabularyPass<A> output;
  GatheredLayer<S> first_layer;
  A *weight_scratch, *direct_scratch, *bias_scratch, *class_weight_scratch;
  A* losses;  // (N)
  // The arrays that gradients are computed in: the caller's, or scratch for 16-bit types.
  A *dembedding, *dweight, *dbias, *doutput_weight, *ddirect, *doutput_bias;

  MlpVocabularyKernel(Workspace& workspace, const MlpCrossEntropy<S>& p, bool gradients)
      : problem(p),
        N(p.hidden.N),
        V(p.output.V),
        H(p.hidden.H),
        K(p.hidden.T * p.hidden.E),
        direct_width(p.direct ? K : 0),
        output(workspace, N, V, H + direct_width, gradients, p.output.options.softcap > 0),
        first_layer(workspace, p.hidden, p.dropout, p.sparse, output.chunk, gradients) {
    weight_scratch = workspace.take<A>(scratch_size<S>(V * H));
    direct_scratch = workspace.take<A>(scratch_size<S>(V * direct_width));
    bias_scratch = workspace.take<A>(scratch_size<S>(V));
    class_weight_scratch = workspace.take<A>(scratch_size<S>(V));
    losses = workspace.take<A>(p.output.options.reduction == Reduction::none ? 0 : N);
    const auto scratch = [&](int64_t n) {
      return workspace.take<A>(gradients ? scratch_size<S>(n) : 0);
    };
    dembedding = scratch(p.hidden.V * p.hidden.E);
    dweight = scratch(H * K);
    dbias = scratch(H);
    doutput_weight = scratch(V * H);
    ddirect = scratch(V * direct_width);
    doutput_bias = scratch(V);
  }

  void run(A* loss, const Gradients* gradients, const Parallel& parallel) {
    if (gradients) place(*gradients);
    const A factor = pass(loss, gradients != nullptr, parallel, false,
                          [this, gradients](int64_t v0, int64_t v1, A scale) {
                            finish_rows(*gradients, v0, v1, scale);
                          });
    if (gradients) finish_gradients(*gradients, factor, parallel);
  }

  void place(const Gradients& d) {
    dembedding = writable(d.hidden.embedding, dembedding);
    dweight = writable(d.hidden.weight, dweight);
    dbias = d.hidden.bias ? writable(d.hidden.bias, dbias) : nullptr;
    doutput_weight = writable(d.output.weight, doutput_weight);
    ddirect = direct_width > 0 ? writable(d.direct, ddirect) : nullptr;
    doutput_bias = d.output.bias ? writable(d.output.bias, doutput_bias) : nullptr;
  }

  // The loss, and the gradients in their places but for a factor, which is returned; that of the
  // embedding is left in first_layer.dembedding. finished(v0, v1, factor): called when rows
  // [v0, v1) of what the output layer has are complete, by the thread that has them in its caches;
  // if it `updates` them, the pass cannot be abandoned after that.
  template <class Finished>
  A pass(A* loss, bool gradients, const Parallel& parallel, bool updates,
         const Finished& finished) const {
    alone(parallel, "index", Stop::anywhere, [this] { prepare(); });
    const LossRule<S> rule(problem.output, class_weight_scratch, losses, loss);
    const VocabularyLayer<A> layer = output_layer();
    for_chunks(0, N, output.chunk, [&](int64_t first, int64_t last) {
      const Panels panels(last - first);
      forward(rule, layer, first, panels, parallel);
      if (gradients) {
        const bool ends = updates && last == N;
        output.run_gradients(rule, layer, first > 0, panels, parallel,
                             ends ? Stop::before : Stop::anywhere,
                             [last, finished, this, &rule](int64_t v0, int64_t v1) {
                               if (last == N) finished(v0, v1, rule.common_scale);
                             });
        backward(first, panels, parallel, ends ? Stop::never : Stop::anywhere);
      }
    });
    rule.reduce(loss);
    return rule.common_scale;
  }

  // dembedding, times a factor: all of it, or the rows that occur if it is sparse.
  void place_embedding(A scale_by, const Parallel& parallel, Stop stop) const {
    const EmbeddingRows<A>& rows = first_layer.dembedding;
    const int64_t E = rows.E;
    const int32_t* const tokens = problem.sparse.tokens;
    parallel.run({"dembedding", tokens ? *rows.count : rows.V, E, stop},
                 [this, &rows, tokens, E, scale_by](int64_t begin, int64_t end) {
                   for (int64_t r = begin; r < end; ++r) {
                     const int64_t v = tokens ? tokens[r] : r;
                     rows.place(v, scale_by, dembedding + v * E);
                   }
                 });
  }

 private:
  void prepare() const {
    first_layer.prepare();
    const LinearCrossEntropy<S>& p = problem.output;
    widened(p.weight, V * H, weight_scratch);
    widened(p.bias, V, bias_scratch);
    widened(problem.direct, V * direct_width, direct_scratch);
  }

  VocabularyLayer<A> output_layer() const {
    const LinearCrossEntropy<S>& p = problem.output;
    return {{{H, readable(p.weight, weight_scratch), first_layer.hidden, doutput_weight},
             {direct_width, readable(problem.direct, direct_scratch), first_layer.x, ddirect}},
            readable(p.bias, bias_scratch),
            doutput_bias};
  }

  void forward(const LossRule<S>& rule, const VocabularyLayer<A>& layer, int64_t first,
               const Panels& panels, const Parallel& parallel) const {
    panels.run(parallel, "forward", first_layer.forward_cost(), Stop::anywhere,
               [this, &rule, &layer, first](int64_t n0, int64_t n1) {
                 first_layer.forward(first, n0, n1);
                 output.prepare_panel(rule, layer, first, n0, n1);
               });
    output.run_forward(rule, layer, first, panels, parallel);
  }

  void backward(int64_t first, const Panels& panels, const Parallel& parallel, Stop stop) const {
    panels.run(
        parallel, "backward", first_layer.backward_cost() + output.blocks.count * output.width,
        stop, [this, first](int64_t n0, int64_t n1) {
          first_layer.backward(output.dinput_of_panel(n0, n1), direct_width > 0, first, n0, n1);
        });
    constexpr int64_t unit = 8;
    parallel.run({"backward", divide_up(H, unit), unit * panels.rows * K, stop},
                 [this, first, &panels](int64_t begin, int64_t end) {
                   first_layer.add_weight(panels.rows, begin * unit, smaller(H, end * unit),
                                          first > 0, dweight, dbias);
                 });
    alone(parallel, "dembedding", stop,
          [this, first, &panels] { first_layer.add_embedding(first, panels.rows); });
  }

  // The output layer's rows [v0, v1) as the caller wants them.
  void finish_rows(const Gradients& d, int64_t v0, int64_t v1, A factor) const {
    if (d.factor) factor = 1;
    finish(doutput_weight + v0 * H, (v1 - v0) * H, factor, offset(d.output.weight, v0 * H));
    finish(ddirect + v0 * direct_width, (v1 - v0) * direct_width, factor,
           offset(d.direct, v0 * direct_width));
    if (doutput_bias) finish(doutput_bias + v0, v1 - v0, factor, offset(d.output.bias, v0));
  }

  void finish_gradients(const Gradients& d, A factor, const Parallel& parallel) const {
    if (d.factor) *d.factor = factor;
    if (d.factor) factor = 1;
    if (N == 0) clear(d);
    place_embedding(factor, parallel, Stop::anywhere);
    narrow(dembedding, problem.hidden.V * problem.hidden.E, d.hidden.embedding);
    finish(dweight, H * K, factor, d.hidden.weight);
    if (dbias) finish(dbias, H, factor, d.hidden.bias);
  }

  // Sets the gradients to 0 that the first chunk sets if there is one.
  void clear(const Gradients& d) const {
    fill(dweight, H * K, A(0));
    if (dbias) fill(dbias, H, A(0));
    fill(doutput_weight, V * H, A(0));
    fill(ddirect, V * direct_width, A(0));
    if (doutput_bias) fill(doutput_bias, V, A(0));
    finish_rows(d, 0, V, A(1));
  }
};
