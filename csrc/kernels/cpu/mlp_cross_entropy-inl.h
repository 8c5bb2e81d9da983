// The whole model, its loss and the gradients of all parameters: embed_linear_tanh and
// linear_cross_entropy joined chunk by chunk, so that the hidden layer and its gradient never leave
// the caches.
//
// Threads divide the columns of the hidden layer (ColumnBlocks). A thread computes its columns of
// the hidden layer, what they add to the logits, and later their gradients: of what the layers
// hold, nothing moves between cores. What moves is the logits, one set of partial sums a block, and
// dlogits. That pays where a row of logits is shorter than one of the hidden layer; with a larger
// vocabulary a thread computes the logits of whole rows, up to where the vocabulary itself is
// divided (mlp_vocabulary-inl.h).

template <class S>
struct MlpCrossEntropyKernel {
  using A = Accumulate<S>;
  using Gradients = MlpCrossEntropyGradients<S>;
  EmbedLinearTanhPass<S> first_layer;
  ColumnBlocks blocks;
  bool split_logits;
  LinearCrossEntropyPass<S> last_layer;
  int64_t N, H, V, chunk;
  BlockedArray<A> hidden;   // (chunk, H)
  BlockedArray<A> dhidden;  // (row_block, H): a few rows at a time
  A* partial_logits;        // (blocks.count, chunk, V), if split_logits
  ColumnView<const A> output_weight;
  A *dembedding, *dweight, *dbias, *doutput_bias;
  ColumnView<A> doutput_weight;

  MlpCrossEntropyKernel(Workspace& workspace, const MlpCrossEntropy<S>& p, bool gradients)
      : first_layer(workspace, p.hidden),
        blocks(first_layer.columns),
        split_logits(p.output.V <= p.hidden.H),
        last_layer(workspace, p.output,
                   p.hidden.H + (split_logits ? blocks.count + 1 : 1) * p.output.V),
        N(p.hidden.N),
        H(p.hidden.H),
        V(p.output.V),
        chunk(last_layer.chunk),
        output_weight{blocks, last_layer.weight, V, p.output_weight_in_blocks},
        doutput_weight{blocks, nullptr, V, p.output_weight_in_blocks} {
    hidden = {workspace, blocks, chunk};
    partial_logits = workspace.take<A>(split_logits ? blocks.count * chunk * V : 0);
    if (!gradients) return;
    dhidden = {workspace, blocks, smaller(chunk, row_block)};
    first_layer.take_backward_scratch(workspace, chunk < N);
    dembedding = workspace.take<A>(scratch_size<S>(first_layer.V * first_layer.E));
    dweight = workspace.take<A>(scratch_size<S>(H * first_layer.K));
    dbias = workspace.take<A>(scratch_size<S>(H));
    doutput_weight.data = workspace.take<A>(scratch_size<S>(doutput_weight.size()));
    doutput_bias = workspace.take<A>(scratch_size<S>(V));
  }

  void run(A* loss, const Gradients* gradients, const Parallel& parallel) {
    if (gradients) place(*gradients);
    const A factor = pass(loss, gradients != nullptr, parallel, [](int64_t, A) {});
    if (gradients) finish_gradients(*gradients, factor, parallel);
  }

  // Gradients are computed in their places, or in scratch for 16-bit types.
  void place(const Gradients& d) {
    dembedding = writable(d.hidden.embedding, dembedding);
    dweight = writable(d.hidden.weight, dweight);
    dbias = d.hidden.bias ? writable(d.hidden.bias, dbias) : nullptr;
    doutput_weight.data = writable(d.output.weight, doutput_weight.data);
    doutput_bias = d.output.bias ? writable(d.output.bias, doutput_bias) : nullptr;
    if (N == 0) clear();
  }

  // The loss, and all gradients but the embedding's, in their places but for a factor, which is
  // returned. finished(block, factor): called when a column block of them is complete, by the
  // thread that has it in its caches; the output bias's are complete after the last block.
  //
  // Many passes of one object write to none of its members: other cores have copies of them.
  template <class Finished>
  A pass(A* loss, bool gradients, const Parallel& parallel, const Finished& finished) {
    first_layer.prepare(gradients, parallel);
    const auto rule = last_layer.prepare(loss);
    for_chunks(0, N, chunk, [&](int64_t first, int64_t last) {
      forward_columns(first, last, parallel);
      losses_of_rows(rule, first, last, gradients, parallel);
      if (gradients) backward_columns(first, last, parallel, finished, rule.common_scale);
    });
    rule.reduce(loss);
    return rule.common_scale;
  }

 private:
  // Sets the gradients to 0 that backward_columns sets if there is a chunk.
  void clear() const {
    fill(dweight, H * first_layer.K, A(0));
    if (dbias) fill(dbias, H, A(0));
    fill(doutput_weight.data, doutput_weight.size(), A(0));
    if (doutput_bias) fill(doutput_bias, V, A(0));
  }

  // The hidden layer, after the tables at the first chunk; and what it adds to the logits.
  void forward_columns(int64_t first, int64_t last, const Parallel& parallel) const {
    const int64_t count = last - first;
    const int64_t cost = (first == 0 ? first_layer.project_cost() + V : 0) +
                         count * (first_layer.T + exp_cost + (split_logits ? V : 0));
    blocks.run(parallel, "forward", cost, [this, first, last](int64_t block) {
      if (first == 0) {
        first_layer.project(block);
        last_layer.transpose_columns(block, output_weight);
      }
      first_layer.hidden_columns(block, first, last, hidden[block], blocks.stride);
      if (split_logits) {
        add_logits(block, 0, last - first, partial_logits + block * chunk * V, false);
      }
    });
  }

  // out (end - begin, V): what a column block adds to the logits of rows [begin, end) of the chunk.
  void add_logits(int64_t block, int64_t begin, int64_t end, A* out, bool add) const {
    gemm<A>(end - begin, V, blocks.width(block),
            {hidden[block] + begin * blocks.stride, blocks.stride, 1},
            last_layer.weight_transposed + blocks.begin(block) * V, V, out, V, add);
  }

  template <class Rule>
  void losses_of_rows(const Rule& rule, int64_t first, int64_t last, bool gradients,
                      const Parallel& parallel) const {
    const int64_t cost = V * (2 * exp_cost + (split_logits ? blocks.count : H));
    parallel.run({"softmax", last - first, cost},
                 [this, &rule, first, gradients](int64_t begin, int64_t end) {
                   for_chunks(begin, end, row_block, [&](int64_t b, int64_t e) {
                     A* x = last_layer.logits + b * V;
                     logits_of_rows(b, e, x);
                     last_layer.losses_of_rows(rule, first + b, e - b, x, gradients);
                   });
                 });
  }

  // x: the logits of rows [begin, end) of the chunk.
  void logits_of_rows(int64_t begin, int64_t end, A* x) const {
    const A* const bias = last_layer.bias;
    for (int64_t n = begin; n < end; ++n) {
      for_vectors<A>(0, V, [&](int64_t v, auto lanes) {
        Vec<A> sum = bias ? load(bias + v, lanes) : constant(A(0));
        for (int64_t b = 0; split_logits && b < blocks.count; ++b) {
          sum = sum + load(partial_logits + (b * chunk + n) * V + v, lanes);
        }
        store(x + (n - begin) * V + v, sum, lanes);
      });
    }
    for (int64_t b = 0; !split_logits && b < blocks.count; ++b) add_logits(b, begin, end, x, true);
  }

  // The columns of all gradients; complete after the last chunk.
  template <class Finished>
  void backward_columns(int64_t first, int64_t last, const Parallel& parallel,
                        const Finished& finished, A factor) const {
    const int64_t cost =
        (last - first) * (2 * V + first_layer.T + 1) + (last == N ? first_layer.finish_cost() : 0);
    const auto body = [this, first, last, finished, factor](int64_t block) {
      const int64_t stride = blocks.stride;
      last_layer.columns(block, last - first, first > 0, hidden[block], stride, doutput_weight,
                         doutput_bias);
      for_chunks(0, last - first, row_block, [&](int64_t b, int64_t e) {
        gemm<A>(e - b, blocks.width(block), V, {last_layer.logits + b * V, V, 1},
                output_weight[block], output_weight.ld(), dhidden[block], stride, false);
        first_layer.scatter_columns(block, hidden[block] + b * stride, dhidden[block], stride,
                                    first + b, first + e);
      });
      if (last < N) return;
      first_layer.finish_columns(block, dweight, dbias);
      finished(block, factor);
    };
    blocks.run(parallel, "backward", cost, body, last == N ? Stop::before : Stop::anywhere);
  }

  void finish_gradients(const Gradients& d, A factor, const Parallel& parallel) const {
    first_layer.finish_embedding(dembedding, parallel);
    if (d.factor) {
      *d.factor = factor;
      factor = 1;
    }
    finish(dembedding, first_layer.V * first_layer.E, factor, d.hidden.embedding);
    finish(dweight, H * first_layer.K, factor, d.hidden.weight);
    if (dbias) finish(dbias, H, factor, d.hidden.bias);
    finish(doutput_weight.data, doutput_weight.size(), factor, d.output.weight);
    if (doutput_bias) finish(doutput_bias, V, factor, d.output.bias);
  }
};
