// The update rules of torch.optim.SGD and torch.optim.AdamW, in their order of operations, on the
// parameters of the whole model.

// Part of an array of parameters: `rows` times `width` elements from `begin` on, rows `ld` apart;
// or the rows that an index lists.
struct Part {
  int64_t begin, rows, width, ld;
  const int32_t* index = nullptr;  // (rows), or null

  // body(i, lanes) over all elements.
  template <class A, class Body>
  void for_elements(const Body& body) const {
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t first = begin + (index ? index[r] : r) * ld;
      for_vectors<A>(first, first + width, body);
    }
  }
};

template <class A>
inline void sgd(const OptimizerStep& s, A scale, const UpdatedParameter<A>& u, const Part& part) {
  const A* const gradient = u.gradient;
  A *const parameter = u.parameter, *const buffer = u.first;
  const Vec<A> factor = constant(scale), decay = constant(A(s.weight_decay));
  const Vec<A> momentum = constant(A(s.momentum)), rate = constant(A(-s.lr));
  const bool decays = s.weight_decay != 0;
  part.for_elements<A>([&](int64_t i, auto lanes) {
    const Vec<A> p = load(parameter + i, lanes);
    Vec<A> g = load(gradient + i, lanes) * factor;
    if (decays) g = fma(decay, p, g);
    if (buffer) {
      g = fma(momentum, load(buffer + i, lanes), g);
      store(buffer + i, g, lanes);
    }
    store(parameter + i, fma(rate, g, p), lanes);
  });
}

template <class A>
inline void adamw(const OptimizerStep& s, A scale, const UpdatedParameter<A>& u, const Part& part) {
  const A* const gradient = u.gradient;
  A *const parameter = u.parameter, *const exp_avg = u.first, *const exp_avg_sq = u.second;
  const double correction1 = 1 - __builtin_pow(s.beta1, double(s.step));
  const double correction2 = 1 - __builtin_pow(s.beta2, double(s.step));
  const Vec<A> factor = constant(scale), keep = constant(A(1 - s.lr * s.weight_decay));
  const Vec<A> towards = constant(A(1 - s.beta1)), beta2 = constant(A(s.beta2));
  const Vec<A> weight2 = constant(A(1 - s.beta2)), eps = constant(A(s.eps));
  const Vec<A> root2 = constant(A(__builtin_sqrt(correction2)));
  const Vec<A> rate = constant(A(-s.lr / correction1));
  part.for_elements<A>([&](int64_t i, auto lanes) {
    const Vec<A> g = load(gradient + i, lanes) * factor;
    const Vec<A> old = load(exp_avg + i, lanes);
    const Vec<A> m = fma(towards, g - old, old);
    const Vec<A> v = fma(weight2 * g, g, load(exp_avg_sq + i, lanes) * beta2);
    store(exp_avg + i, m, lanes);
    store(exp_avg_sq + i, v, lanes);
    const Vec<A> denominator = sqrt(v) / root2 + eps;
    const Vec<A> p = load(parameter + i, lanes) * keep;
    store(parameter + i, fma(rate, m / denominator, p), lanes);
  });
}

enum class Decay { weights, biases };

template <class A>
inline void update(const UpdatedParameter<A>& u, OptimizerStep step, A factor, const Part& part,
                   Decay kind = Decay::weights) {
  if (!u.parameter) return;
  if (kind == Decay::biases && !step.decay_biases) step.weight_decay = 0;
  if (step.adamw) {
    adamw(step, factor, u, part);
  } else {
    sgd(step, factor, u, part);
  }
}

// Multiply-adds that an element is worth.
inline int64_t update_cost(const OptimizerStep& step) { return step.adamw ? 16 : 4; }

// Divided as the gradients are: a thread updates what it has in its caches.
template <class A>
struct MlpUpdatePass {
  const MlpUpdate<A>& problem;
  ColumnBlocks blocks;

  explicit MlpUpdatePass(const MlpUpdate<A>& p) : problem(p), blocks(p.H, p.N) {}

  // All parameters, in one phase.
  void run(const OptimizerStep& step, A factor, const Parallel& parallel) const {
    const MlpUpdate<A>& p = problem;
    const int64_t elements = (p.V + 1) * p.E + p.H * (p.T * p.E + p.V);
    parallel.run({"update", blocks.count, cost(elements), Stop::before},
                 [this, &step, factor](int64_t begin, int64_t end) {
                   for (int64_t block = begin; block < end; ++block) {
                     update_columns(block, step, factor);
                     update_rows(block, step, factor);
                   }
                 });
  }

  // Updates a column block: its rows of the first layer, its columns of the output weight.
  void update_columns(int64_t block, const OptimizerStep& step, A factor) const {
    const MlpUpdate<A>& p = problem;
    const int64_t h0 = blocks.begin(block), width = blocks.width(block), K = p.T * p.E;
    const ColumnView<A> output{blocks, nullptr, p.V, p.output_weight_in_blocks};
    update(p.hidden_weight, step, factor, {h0 * K, 1, width * K, 0});
    update(p.hidden_bias, step, factor, {h0, 1, width, 0}, Decay::biases);
    update(p.output_weight, step, factor, {output.offset(block), p.V, width, output.ld()});
  }

  // Updates the parameters without columns, after all columns, when there is no way back.
  void finish(const OptimizerStep& step, A factor, const Parallel& parallel) const {
    const int64_t elements = (problem.V + 1) * problem.E;
    parallel.run({"update", blocks.count, cost(elements), Stop::never},
                 [this, &step, factor](int64_t begin, int64_t end) {
                   for (int64_t block = begin; block < end; ++block)
                     update_rows(block, step, factor);
                 });
  }

 private:
  // The cost of a block, given the number of elements of all blocks.
  int64_t cost(int64_t elements) const {
    return divide_up(elements * update_cost(problem.step), blocks.count);
  }

  // A block's share of the embedding and the output bias.
  void update_rows(int64_t block, const OptimizerStep& step, A factor) const {
    const MlpUpdate<A>& p = problem;
    const int64_t v0 = p.V * block / blocks.count, v1 = p.V * (block + 1) / blocks.count;
    update(p.embedding, step, factor, {v0 * p.E, 1, (v1 - v0) * p.E, 0});
    update(p.output_bias, step, factor, {v0, 1, v1 - v0, 0}, Decay::biases);
  }
};

// Divided into pieces of whole arrays, but for the output layer's rows that a thread has in its
// caches: where the vocabulary is divided among threads.
template <class A>
struct MlpVocabularyUpdate {
  static constexpr int64_t count = 6, piece = 16384;
  struct Array {
    const UpdatedParameter<A>& parameter;
    int64_t size, row;  // row: elements that belong to a word of the vocabulary, or 0
    Decay kind;
    SparseRows sparse{};

    int64_t rows_in_piece() const { return larger(1, piece / row); }
    int64_t pieces() const {
      return sparse.tokens ? divide_up(*sparse.count, rows_in_piece()) : divide_up(size, piece);
    }
    // Pieces [begin, end).
    Part part(int64_t begin, int64_t end) const {
      if (!sparse.tokens) return {begin * piece, 1, smaller(size, end * piece) - begin * piece, 0};
      const int64_t r0 = begin * rows_in_piece();
      const int64_t r1 = smaller(*sparse.count, end * rows_in_piece());
      return {0, r1 - r0, row, row, sparse.tokens + r0};
    }
  };
  Array arrays[count];

  explicit MlpVocabularyUpdate(const MlpUpdate<A>& p)
      : arrays{{p.output_weight, outputs(p) * p.H, p.H, Decay::weights},
               {p.direct, outputs(p) * p.T * p.E, p.T * p.E, Decay::weights},
               {p.output_bias, outputs(p), 1, Decay::biases},
               {p.hidden_weight, p.H * p.T * p.E, 0, Decay::weights},
               {p.hidden_bias, p.H, 0, Decay::biases},
               {p.embedding, p.V * p.E, p.E, Decay::weights, p.sparse}} {}

  static int64_t outputs(const MlpUpdate<A>& p) { return p.outputs > 0 ? p.outputs : p.V; }

  static constexpr int64_t output_layer = 0, first_layer = 3;  // begin there

  // Rows [v0, v1) of the output layer.
  void update_rows(int64_t v0, int64_t v1, const OptimizerStep& step, A factor) const {
    for (int64_t i = output_layer; i < first_layer; ++i) {
      const Array& a = arrays[i];
      update(a.parameter, step, factor, {v0 * a.row, 1, (v1 - v0) * a.row, 0}, a.kind);
    }
  }

  // All arrays from `first` on, in one phase.
  void run(int64_t first, const OptimizerStep& step, A factor, const Parallel& parallel,
           Stop stop) const {
    int64_t pieces = 0;
    for (int64_t i = first; i < count; ++i) pieces += arrays[i].pieces();
    parallel.run({"update", pieces, piece * update_cost(step), stop},
                 [this, first, &step, factor](int64_t begin, int64_t end) {
                   int64_t before = 0;
                   for (int64_t i = first; i < count; ++i) {
                     const Array& a = arrays[i];
                     const int64_t b = larger(0, begin - before);
                     const int64_t e = smaller(a.pieces(), end - before);
                     if (b < e) update(a.parameter, step, factor, a.part(b, e), a.kind);
                     before += a.pieces();
                   }
                 });
  }
};

template <class A>
inline double sum_of_squares(int64_t n, const A* x) {
  constexpr int64_t chains = 8;  // of dependent additions
  double sums[chains] = {};
  for (int64_t i = 0; i < n; ++i) sums[i % chains] += double(x[i]) * double(x[i]);
  double sum = 0;
  for (double s : sums) sum += s;
  return sum;
}
