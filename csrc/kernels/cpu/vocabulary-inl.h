// The output layer where the vocabulary is large: logits, losses and gradients of a chunk of rows,
// with the vocabulary divided among threads. A thread keeps its rows of the weight and of its
// gradient, and its part of the logits, in its own core's caches; what crosses between threads is a
// row's maximum and sum of exponentials, and each block's share of the input's gradient.
//
// Logits are kept transposed, examples in the lanes of the vectors: all three products then read
// the weight as it lies, and the softmax of a row is a loop over vectors with no sums across lanes.

// Columns of the input that have a weight of their own: the hidden layer, the embeddings.
template <class A>
struct VocabularyInput {
  int64_t width = 0;
  const A* weight = nullptr;  // (V, width)
  const A* rows = nullptr;    // (chunk, width)
  A* dweight = nullptr;       // (V, width)
};

template <class A>
struct VocabularyLayer {
  VocabularyInput<A> inputs[2];  // of the second the width may be 0
  const A* bias = nullptr;       // (V), or null
  A* dbias = nullptr;            // (V), or null

  int64_t width() const { return inputs[0].width + inputs[1].width; }

  // body(input, the column of all inputs that it begins at) for each that is there.
  template <class Body>
  void for_inputs(const Body& body) const {
    body(inputs[0], int64_t(0));
    if (inputs[1].width > 0) body(inputs[1], inputs[0].width);
  }
};

template <class A>
struct VocabularyPass {
  VocabularyBlocks blocks;
  int64_t V, width, chunk;
  bool gradients;
  A* transposed;                      // (width, chunk) in panels: the inputs
  A* logits;                          // (V, chunk) in panels, then dlogits; or a tile a block
  A *block_maximum, *block_sum;       // (blocks, chunk): the softmax over a block
  A* block_spread;                    // (blocks, chunk), with smoothing: Σ_v w_v (maximum - x_v)
  A* target_logit;                    // (chunk)
  int32_t* target;                    // (chunk), -1 for what is ignored
  A* maximum;                         // (chunk)
  A *factor, *spread, *hit, *lowest;  // (chunk): SoftmaxLoss::Gradient of the rows
  A* bias_lanes;                      // (blocks, tile, vector): dbias of a tile in the making
  A* capped;                          // (blocks, tile, panel)
  A* dinput;                          // (blocks, width, chunk) in panels

  VocabularyPass(Workspace& workspace, int64_t N, int64_t V, int64_t width, bool gradients,
                 bool caps)
      : blocks(V),
        V(V),
        width(width),
        chunk(vocabulary_chunk(N, V, gradients)),
        gradients(gradients) {
    const int64_t count = blocks.count, tile = blocks.tile, panel_tile = tile * Panels::widest;
    transposed = workspace.take<A>(width * chunk);
    logits = workspace.take<A>(gradients ? V * chunk : count * panel_tile);
    block_maximum = workspace.take<A>(count * chunk);
    block_sum = workspace.take<A>(count * chunk);
    block_spread = workspace.take<A>(count * chunk);
    target_logit = workspace.take<A>(chunk);
    target = workspace.take<int32_t>(chunk);
    maximum = workspace.take<A>(chunk);
    factor = workspace.take<A>(chunk);
    spread = workspace.take<A>(chunk);
    hit = workspace.take<A>(chunk);
    lowest = workspace.take<A>(chunk);
    bias_lanes = workspace.take<A>(gradients ? count * tile * Vec<A>::size : 0);
    capped = workspace.take<A>(gradients && caps ? count * panel_tile : 0);
    dinput = workspace.take<A>(gradients ? count * width * chunk : 0);
  }

  // The panel [n0, n1) of the inputs and the targets of a chunk that starts at example `first`.
  template <class S>
  void prepare_panel(const LossRule<S>& rule, const VocabularyLayer<A>& layer, int64_t first,
                     int64_t n0, int64_t n1) const {
    layer.for_inputs([&](const VocabularyInput<A>& in, int64_t column) {
      transpose(n1 - n0, in.width, in.rows + n0 * in.width, in.width,
                transposed + n0 * width + column * (n1 - n0), n1 - n0);
    });
    for (int64_t n = n0; n < n1; ++n) {
      const int64_t id = rule.problem.target[first + n];
      target[n] = rule.softmax.ignores(id) ? -1 : static_cast<int32_t>(id);
    }
  }

  // The losses of a chunk whose panels are prepared.
  template <class S>
  void run_forward(const LossRule<S>& rule, const VocabularyLayer<A>& layer, int64_t first,
                   const Panels& panels, const Parallel& parallel) const {
    blocks.run(parallel, "forward", panels.rows * (width + exp_cost), Stop::anywhere,
               [this, &rule, &layer, &panels](int64_t block) {
                 logits_of_block(rule.softmax, layer, block, panels);
               });
    parallel.run({"softmax", panels.rows, (blocks.count + 1) * exp_cost, Stop::anywhere},
                 [this, &rule, first](int64_t begin, int64_t end) {
                   losses_of_rows(rule, first, begin, end);
                 });
  }

  // After it: the rows of dweight and dbias, added to those of earlier chunks if `add`, and the
  // blocks' shares of the inputs' gradient. finished(v0, v1): called when these rows are added.
  template <class S, class Finished>
  void run_gradients(const LossRule<S>& rule, const VocabularyLayer<A>& layer, bool add,
                     const Panels& panels, const Parallel& parallel, Stop stop,
                     const Finished& finished) const {
    blocks.run(parallel, "backward", panels.rows * (2 * width + exp_cost), stop,
               [this, &rule, &layer, add, &panels, &finished](int64_t block) {
                 gradients_of_block(rule.softmax, layer, block, panels, add, finished);
               });
  }

  // The gradient of a panel of the inputs, transposed (width, n1 - n0).
  const A* dinput_of_panel(int64_t n0, int64_t n1) const {
    A* const out = dinput + n0 * width;
    for_vectors<A>(0, width * (n1 - n0), [&](int64_t i, auto lanes) {
      Vec<A> total = load(out + i, lanes);
      for (int64_t b = 1; b < blocks.count; ++b) {
        total = total + load(out + b * width * chunk + i, lanes);
      }
      store(out + i, total, lanes);
    });
    return out;
  }

 private:
  // A block's logits, and their softmax over the block.
  void logits_of_block(const SoftmaxLoss<A>& loss, const VocabularyLayer<A>& layer, int64_t block,
                       const Panels& panels) const {
    fill(block_maximum + block * chunk, panels.rows, least);
    fill(block_sum + block * chunk, panels.rows, A(0));
    fill(block_spread + block * chunk, panels.rows, A(0));
    double weight_before = 0;  // of the block's classes up to here
    blocks.for_tiles(block, [&](int64_t v0, int64_t v1) {
      const double weight = loss.smoothing > 0 ? loss.weight_of(v0, v1) : 0;
      const Tile weights{v0, v1, A(weight_before), A(weight)};
      panels.for_each([&](int64_t n0, int64_t n1) {
        A* const x = tile_of(block, v0, n0, n1);
        layer.for_inputs([&](const VocabularyInput<A>& in, int64_t column) {
          gemm<A>(v1 - v0, n1 - n0, in.width, {in.weight + v0 * in.width, in.width, 1},
                  transposed + n0 * width + column * (n1 - n0), n1 - n0, x, n1 - n0, column > 0);
        });
        if (layer.bias) add_bias(layer.bias + v0, v1 - v0, n1 - n0, x);
        if (loss.softcap > 0) loss.cap(x, (v1 - v0) * (n1 - n0));
        softmax_of_tile(loss, weights, block, n0, n1, x);
        for_targets(v0, v1, n0, n1, [&](int64_t n, int64_t at) { target_logit[n] = x[at]; });
      });
      weight_before += weight;
    });
  }

  // The losses of rows [begin, end) of the chunk that starts at example `first`, and what their
  // gradients depend on.
  template <class S>
  void losses_of_rows(const LossRule<S>& rule, int64_t first, int64_t begin, int64_t end) const {
    for_vectors<A>(begin, end, [&](int64_t n, auto lanes) {
      Vec<A> top = load(block_maximum + n, lanes), total = constant(A(0));
      for (int64_t b = 1; b < blocks.count; ++b) {
        top = max(top, load(block_maximum + b * chunk + n, lanes));
      }
      for (int64_t b = 0; b < blocks.count; ++b) {
        const Vec<A> below = load(block_maximum + b * chunk + n, lanes) - top;
        total = fma(load(block_sum + b * chunk + n, lanes), exp(below), total);
      }
      store(maximum + n, top, lanes);
      store(factor + n, total, lanes);
    });
    for (int64_t n = begin; n < end; ++n) finish_row(rule, first + n, n);
  }

  template <class Finished>
  void gradients_of_block(const SoftmaxLoss<A>& loss, const VocabularyLayer<A>& layer,
                          int64_t block, const Panels& panels, bool add,
                          const Finished& finished) const {
    A* const shares = dinput + block * width * chunk;
    blocks.for_tiles(block, [&](int64_t v0, int64_t v1) {
      panels.for_each([&](int64_t n0, int64_t n1) {
        const int64_t rows = n1 - n0;
        A* const x = tile_of(block, v0, n0, n1);
        dlogits_of_tile(loss, block, v0, v1, n0, n1, x);
        if (layer.dbias) add_lanes(block, v1 - v0, rows, x, n0 > 0);
        layer.for_inputs([&](const VocabularyInput<A>& in, int64_t column) {
          gemm<A>(v1 - v0, in.width, rows, {x, rows, 1}, in.rows + n0 * in.width, in.width,
                  in.dweight + v0 * in.width, in.width, add || n0 > 0);
          gemm<A>(in.width, rows, v1 - v0, {in.weight + v0 * in.width, 1, in.width}, x, rows,
                  shares + n0 * width + column * rows, rows, v0 > blocks.begin(block));
        });
      });
      if (layer.dbias) finish_bias(block, v1 - v0, layer.dbias + v0, add);
      finished(v0, v1);
    });
  }

  // Not -inf, which a block of classes without any probability would have: then exp(x - maximum) is
  // 0 in it, not NaN.
  static constexpr A least = std::is_same<A, float>::value ? A(-__FLT_MAX__) : A(-__DBL_MAX__);

  // A tile's classes, and the sums of their weights and of those before them in the block.
  struct Tile {
    int64_t v0, v1;
    A before, weight;
  };

  // (v1 - v0, n1 - n0), dense.
  A* tile_of(int64_t block, int64_t v0, int64_t n0, int64_t n1) const {
    if (gradients) return logits + n0 * V + v0 * (n1 - n0);
    return logits + block * blocks.tile * Panels::widest;
  }

  // body(row n of the chunk, its target's place in the tile) where the tile has the target.
  template <class Body>
  void for_targets(int64_t v0, int64_t v1, int64_t n0, int64_t n1, const Body& body) const {
    for (int64_t n = n0; n < n1; ++n) {
      if (target[n] >= v0 && target[n] < v1) body(n, (target[n] - v0) * (n1 - n0) + n - n0);
    }
  }

  static void add_bias(const A* bias, int64_t classes, int64_t rows, A* x) {
    for (int64_t v = 0; v < classes; ++v, x += rows) {
      const Vec<A> b = constant(bias[v]);
      for_vectors<A>(0, rows,
                     [&](int64_t i, auto lanes) { store(x + i, load(x + i, lanes) + b, lanes); });
    }
  }

  // Σ_v term(v) over the classes of a tile, from partial sums of few: see add_up.
  template <class Term>
  static Vec<A> sum_of(int64_t classes, const Term& term) {
    constexpr int64_t few = 16;
    Vec<A> total = constant(A(0));
    for_chunks(0, classes, few, [&](int64_t begin, int64_t end) {
      Vec<A> sum = term(begin);
      for (int64_t v = begin + 1; v < end; ++v) sum = sum + term(v);
      total = total + sum;
    });
    return total;
  }

  // Adds a tile to the softmax of its rows over the block.
  void softmax_of_tile(const SoftmaxLoss<A>& loss, const Tile& tile, int64_t block, int64_t n0,
                       int64_t n1, const A* x) const {
    const int64_t rows = n1 - n0, classes = tile.v1 - tile.v0;
    for_vectors<A>(0, rows, [&](int64_t i, auto lanes) {
      A* const maximum_at = block_maximum + block * chunk + n0 + i;
      A* const sum_at = block_sum + block * chunk + n0 + i;
      const Vec<A> before = load(maximum_at, lanes);
      Vec<A> top = constant(least);
      for (int64_t v = 0; v < classes; ++v) top = max(top, load(x + v * rows + i, lanes));
      const Vec<A> total =
          sum_of(classes, [&](int64_t v) { return exp(load(x + v * rows + i, lanes) - top); });
      const Vec<A> higher = max(before, top);
      store(sum_at, fma(load(sum_at, lanes), exp(before - higher), total * exp(top - higher)),
            lanes);
      store(maximum_at, higher, lanes);
      if (loss.smoothing > 0) {
        A* const spread_at = block_spread + block * chunk + n0 + i;
        Vec<A> below = sum_of(classes, [&](int64_t v) {
          return constant(loss.weight_of(tile.v0 + v)) * (top - load(x + v * rows + i, lanes));
        });
        below = fma(constant(tile.weight), higher - top, below);
        // A block's first tile has no weights before it, and `before` is the lowest number.
        const Vec<A> earlier =
            tile.before != 0 ? constant(tile.before) * (higher - before) : constant(A(0));
        store(spread_at, load(spread_at, lanes) + earlier + below, lanes);
      }
    });
  }

  // Row n of the chunk is example `example`. `factor` holds its sum of exponentials.
  template <class S>
  void finish_row(const LossRule<S>& rule, int64_t example, int64_t n) const {
    const SoftmaxLoss<A>& loss = rule.softmax;
    const RowSoftmax<A> row{maximum[n], factor[n]};
    const int64_t id = rule.problem.target[example];
    if (loss.ignores(id)) {
      rule.losses[example] = 0;
    } else {
      const A log_sum = log(row.sum);
      const double smooth = loss.smoothing > 0 ? smooth_loss(loss, n, row.maximum, log_sum) : 0;
      rule.losses[example] = loss.loss(target_logit[n], row.maximum, log_sum, id, smooth);
    }
    if (!gradients) return;
    const auto gradient = loss.gradient_rule(row, id, rule.row_scale(example));
    factor[n] = gradient.factor;
    spread[n] = gradient.spread;
    hit[n] = gradient.hit;
    lowest[n] = gradient.lowest;
  }

  // Σ_v w_v (-log p_v) of row n.
  double smooth_loss(const SoftmaxLoss<A>& loss, int64_t n, A top, A log_sum) const {
    const double all = loss.class_weight_sum;
    if (all - all != 0) return all;  // infinite or NaN, as the sum is then
    double smooth = all * log_sum;
    for (int64_t b = 0; b < blocks.count; ++b) {
      const double weight = loss.weight_of(blocks.begin(b), blocks.begin(b + 1));
      smooth += block_spread[b * chunk + n];
      smooth += weight * (double(top) - block_maximum[b * chunk + n]);
    }
    return smooth;
  }

  // dlogits in the place of the logits x.
  void dlogits_of_tile(const SoftmaxLoss<A>& loss, int64_t block, int64_t v0, int64_t v1,
                       int64_t n0, int64_t n1, A* x) const {
    const int64_t rows = n1 - n0, size = (v1 - v0) * rows;
    A* const caps = capped + block * blocks.tile * Panels::widest;
    if (loss.softcap > 0) std::memcpy(caps, x, static_cast<size_t>(size) * sizeof(A));
    for_vectors<A>(0, rows, [&](int64_t i, auto lanes) {
      const Vec<A> top = load(maximum + n0 + i, lanes), scale = load(factor + n0 + i, lanes);
      const Vec<A> from = load(lowest + n0 + i, lanes);
      for (int64_t k = i; k < size; k += rows) {
        store(x + k, scale * exp(load(x + k, lanes) - top, from), lanes);
      }
      if (loss.smoothing > 0) {
        const Vec<A> everywhere = load(spread + n0 + i, lanes);
        for (int64_t v = v0, k = i; v < v1; ++v, k += rows) {
          store(x + k, load(x + k, lanes) - everywhere * constant(loss.weight_of(v)), lanes);
        }
      }
    });
    for_targets(v0, v1, n0, n1, [&](int64_t n, int64_t at) { x[at] -= hit[n]; });
    if (loss.softcap > 0) loss.cap_gradient(caps, size, x);
    for (int64_t n = n0; n < n1; ++n) {  // whatever their logits are
      for (int64_t k = n - n0; target[n] < 0 && k < size; k += rows) x[k] = factor[n];
    }
  }

  // Σ over the rows of dlogits x, lane by lane.
  void add_lanes(int64_t block, int64_t classes, int64_t rows, const A* x, bool add) const {
    A* sums = bias_lanes + block * blocks.tile * Vec<A>::size;
    for (int64_t v = 0; v < classes; ++v, x += rows, sums += Vec<A>::size) {
      Vec<A> total = add ? load(sums, AllLanes{}) : constant(A(0));
      for_vectors<A>(0, rows, [&](int64_t i, auto lanes) { total = total + load(x + i, lanes); });
      store(sums, total, AllLanes{});
    }
  }

  void finish_bias(int64_t block, int64_t classes, A* dbias, bool add) const {
    const A* sums = bias_lanes + block * blocks.tile * Vec<A>::size;
    for (int64_t v = 0; v < classes; ++v, sums += Vec<A>::size) {
      const A sum = load(sums, AllLanes{}).reduce_add();
      dbias[v] = add ? dbias[v] + sum : sum;
    }
  }
};
