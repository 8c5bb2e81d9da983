// The update rules of torch.optim.SGD and torch.optim.AdamW, in their order of operations, on the
// parameters of the whole model.

// Elements [begin, begin + n).
template <class A>
inline void sgd(const OptimizerStep& s, const UpdatedParameter<A>& u, int64_t begin, int64_t n) {
  const A* const gradient = u.gradient + begin;
  A* const parameter = u.parameter + begin;
  A* const buffer = u.first ? u.first + begin : nullptr;
  const Vec<A> factor = constant(A(s.factor)), decay = constant(A(s.weight_decay));
  const Vec<A> momentum = constant(A(s.momentum)), rate = constant(A(-s.lr));
  for_vectors<A>(0, n, [&](int64_t i, auto lanes) {
    const Vec<A> p = load(parameter + i, lanes);
    Vec<A> g = load(gradient + i, lanes) * factor;
    if (s.weight_decay != 0) g = fma(decay, p, g);
    if (buffer) {
      g = fma(momentum, load(buffer + i, lanes), g);
      store(buffer + i, g, lanes);
    }
    store(parameter + i, fma(rate, g, p), lanes);
  });
}

template <class A>
inline void adamw(const OptimizerStep& s, const UpdatedParameter<A>& u, int64_t begin, int64_t n) {
  const A* const gradient = u.gradient + begin;
  A* const parameter = u.parameter + begin;
  A *const exp_avg = u.first + begin, *const exp_avg_sq = u.second + begin;
  const double correction1 = 1 - __builtin_pow(s.beta1, double(s.step));
  const double correction2 = 1 - __builtin_pow(s.beta2, double(s.step));
  const Vec<A> factor = constant(A(s.factor)), keep = constant(A(1 - s.lr * s.weight_decay));
  const Vec<A> towards = constant(A(1 - s.beta1)), beta2 = constant(A(s.beta2));
  const Vec<A> weight2 = constant(A(1 - s.beta2)), eps = constant(A(s.eps));
  const Vec<A> root2 = constant(A(__builtin_sqrt(correction2)));
  const Vec<A> rate = constant(A(-s.lr / correction1));
  for_vectors<A>(0, n, [&](int64_t i, auto lanes) {
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

// Divided as the gradients are: a thread updates what it has in its caches.
template <class A>
struct MlpUpdatePass {
  const MlpUpdate<A>& problem;
  ColumnBlocks blocks;

  explicit MlpUpdatePass(const MlpUpdate<A>& p) : problem(p), blocks(p.H, p.N) {}

  void run(const Parallel& parallel) const {
    const int64_t per_element = problem.step.adamw ? 16 : 4;
    const int64_t elements =
        problem.V * problem.E + problem.H * (problem.T * problem.E + problem.V);
    parallel.run({"update", blocks.count, divide_up(elements * per_element, blocks.count)},
                 [&](int64_t begin, int64_t end) {
                   for (int64_t block = begin; block < end; ++block) update(block);
                 });
  }

 private:
  void update(int64_t block) const {
    const MlpUpdate<A>& p = problem;
    const int64_t h0 = blocks.begin(block), width = blocks.width(block), K = p.T * p.E;
    const int64_t v0 = p.V * block / blocks.count, v1 = p.V * (block + 1) / blocks.count;
    elements(p.embedding, v0 * p.E, (v1 - v0) * p.E);
    elements(p.hidden_weight, h0 * K, width * K);
    elements(p.hidden_bias, h0, width);
    for (int64_t v = 0; v < p.V; ++v) elements(p.output_weight, v * p.H + h0, width);
    elements(p.output_bias, v0, v1 - v0);
  }

  void elements(const UpdatedParameter<A>& u, int64_t begin, int64_t n) const {
    if (!u.parameter) return;
    if (problem.step.adamw) {
      adamw(problem.step, u, begin, n);
    } else {
      sgd(problem.step, u, begin, n);
    }
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
