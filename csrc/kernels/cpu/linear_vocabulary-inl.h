// linear_cross_entropy where the vocabulary is large (divides_vocabulary).

template <class S>
struct LinearVocabularyKernel {
  using A = Accumulate<S>;
  using Gradients = LinearCrossEntropyGradients<S>;
  const LinearCrossEntropy<S>& problem;
  int64_t N, H, V;
  VocabularyPass<A> pass;
  A *weight_scratch, *bias_scratch, *class_weight_scratch, *input_scratch;
  A *dinput_scratch, *dweight_scratch, *dbias_scratch;
  A* losses;  // (N)

  LinearVocabularyKernel(Workspace& workspace, const LinearCrossEntropy<S>& p, bool gradients)
      : problem(p),
        N(p.N),
        H(p.H),
        V(p.V),
        pass(workspace, N, V, H, gradients, p.options.softcap > 0) {
    weight_scratch = workspace.take<A>(scratch_size<S>(V * H));
    bias_scratch = workspace.take<A>(scratch_size<S>(V));
    class_weight_scratch = workspace.take<A>(scratch_size<S>(V));
    input_scratch = workspace.take<A>(scratch_size<S>(pass.chunk * H));
    dinput_scratch = workspace.take<A>(gradients ? scratch_size<S>(pass.chunk * H) : 0);
    dweight_scratch = workspace.take<A>(gradients ? scratch_size<S>(V * H) : 0);
    dbias_scratch = workspace.take<A>(gradients ? scratch_size<S>(V) : 0);
    losses = workspace.take<A>(p.options.reduction == Reduction::none ? 0 : N);
  }

  void run(A* loss, const Gradients* gradients, const Parallel& parallel) {
    const LossRule<S> rule(problem, class_weight_scratch, losses, loss);
    VocabularyLayer<A> layer;
    layer.inputs[0].width = H;
    layer.inputs[0].weight = widened(problem.weight, V * H, weight_scratch);
    layer.bias = widened(problem.bias, V, bias_scratch);
    if (gradients) {
      layer.inputs[0].dweight = writable(gradients->weight, dweight_scratch);
      if (gradients->bias) layer.dbias = writable(gradients->bias, dbias_scratch);
      if (N == 0) clear(layer, *gradients);
    }
    for_chunks(0, N, pass.chunk, [&](int64_t first, int64_t last) {
      chunk(rule, layer, first, last, gradients, parallel);
    });
    rule.reduce(loss);
  }

 private:
  void chunk(const LossRule<S>& rule, VocabularyLayer<A>& layer, int64_t first, int64_t last,
             const Gradients* d, const Parallel& parallel) const {
    const Panels panels(last - first);
    const S* const input = problem.input + first * H;
    layer.inputs[0].rows = readable(input, input_scratch);
    panels.run(parallel, "forward", H, Stop::anywhere, [&](int64_t n0, int64_t n1) {
      widened(input + n0 * H, (n1 - n0) * H, input_scratch + scratch_size<S>(n0 * H));
      pass.prepare_panel(rule, layer, first, n0, n1);
    });
    pass.run_forward(rule, layer, first, panels, parallel);
    if (!d) return;
    pass.run_gradients(rule, layer, first > 0, panels, parallel, Stop::anywhere,
                       [&](int64_t v0, int64_t v1) {
                         if (last == N) finish_rows(layer, *d, v0, v1, rule.common_scale);
                       });
    A* const dinput = writable(offset(d->input, first * H), dinput_scratch);
    panels.run(
        parallel, "backward", H * pass.blocks.count, Stop::anywhere, [&](int64_t n0, int64_t n1) {
          const int64_t rows = n1 - n0;
          transpose(H, rows, pass.dinput_of_panel(n0, n1), rows, dinput + n0 * H, H);
          finish(dinput + n0 * H, rows * H, rule.common_scale, offset(d->input, (first + n0) * H));
        });
  }

  void finish_rows(const VocabularyLayer<A>& layer, const Gradients& d, int64_t v0, int64_t v1,
                   A factor) const {
    finish(layer.inputs[0].dweight + v0 * H, (v1 - v0) * H, factor, offset(d.weight, v0 * H));
    if (layer.dbias) finish(layer.dbias + v0, v1 - v0, factor, offset(d.bias, v0));
  }

  void clear(const VocabularyLayer<A>& layer, const Gradients& d) const {
    fill(layer.inputs[0].dweight, V * H, A(0));
    if (layer.dbias) fill(layer.dbias, V, A(0));
    finish_rows(layer, d, 0, V, A(1));
  }
};
