// Softmax cross-entropy of a row of logits: what cross_entropy and linear_cross_entropy share.

inline float log(float x) { return __builtin_logf(x); }
inline double log(double x) { return __builtin_log(x); }

// The maximum of a row and the sum of exp(x - maximum). Subtracting the maximum leaves the softmax
// as it is and keeps exp from overflowing: the loss is stable for logits of any size.
template <class A>
struct RowSoftmax {
  A maximum, sum;
};

// total[r] += Σ_v term(r, v, lanes), in float64 from partial sums of few terms: of terms of one
// sign a long sum in float32 loses the more digits the more there are.
template <class A, int R, class Term>
inline void add_up(int64_t V, double (&total)[R], const Term& term) {
  constexpr int64_t few = 32 * Vec<A>::size;
  for_chunks(0, V, few, [&](int64_t begin, int64_t end) {
    Vec<A> sum[R];
    unrolled<R>([&](auto r) { sum[r] = constant(A(0)); });
    for_vectors<A>(begin, end, [&](int64_t v, auto lanes) {
      unrolled<R>([&](auto r) { sum[r] = sum[r] + term(r, v, lanes); });
    });
    unrolled<R>([&](auto r) { total[r] += double(sum[r].reduce_add()); });
  });
}

// R rows of x (R, V) at once: each row is a chain of dependent steps, and several chains fill the
// time that one would wait.
template <int R, class A>
inline void softmax_of_rows(const A* x, int64_t V, RowSoftmax<A>* rows) {
  constexpr A lowest = -A(__builtin_inf());
  Vec<A> largest[R];
  A maximum[R];
  double sum[R] = {};
  unrolled<R>([&](auto r) { largest[r] = constant(lowest); });
  for_vectors<A>(0, V, [&](int64_t v, auto lanes) {
    unrolled<R>([&](auto r) { largest[r] = max(largest[r], load(x + r * V + v, lanes, lowest)); });
  });
  unrolled<R>([&](auto r) { maximum[r] = largest[r].reduce_max(); });
  add_up<A>(V, sum, [&](auto r, int64_t v, auto lanes) {
    return exp(load(x + r * V + v, lanes, lowest) - constant(maximum[r]));
  });
  unrolled<R>([&](auto r) { rows[r] = {maximum[r], A(sum[r])}; });
}

// rows[n] for each of the rows of x (count, V).
template <class A>
inline void row_softmax(const A* x, int64_t count, int64_t V, RowSoftmax<A>* rows) {
  constexpr int together = 8;
  int64_t n = 0;
  for (; n + together <= count; n += together) softmax_of_rows<together>(x + n * V, V, rows + n);
  for (; n < count; ++n) softmax_of_rows<1>(x + n * V, V, rows + n);
}

// Rows whose softmax is held at once.
constexpr int64_t row_block = 32;

// CrossEntropyOptions in the type arithmetic is done in. With p = softmax(x), target y, class
// weights w, smoothing s and W = Σ w, the loss of a row is, as in F.cross_entropy,
//   (1 - s) w_y (-log p_y) + s/V Σ_v w_v (-log p_v) + z_loss logsumexp(x)².
template <class A>
struct SoftmaxLoss {
  int64_t V, ignore_index;
  A smoothing, z_loss, softcap;
  const A* class_weight;  // (V) or null
  A class_weight_sum;

  template <class S>
  SoftmaxLoss(int64_t V, const CrossEntropyOptions<S>& options, A* class_weight_scratch)
      : V(V),
        ignore_index(options.ignore_index),
        smoothing(A(options.label_smoothing)),
        z_loss(A(options.z_loss)),
        softcap(A(options.softcap)),
        class_weight(widened(options.class_weight, V, class_weight_scratch)),
        class_weight_sum(A(weight_of(0, V))) {}

  A weight_of(int64_t target) const { return class_weight ? class_weight[target] : A(1); }

  // The sum of the weights of classes [begin, end).
  double weight_of(int64_t begin, int64_t end) const {
    if (!class_weight) return double(end - begin);
    double total = 0;
    for (int64_t v = begin; v < end; ++v) total += class_weight[v];
    return total;
  }

  bool ignores(int64_t target) const { return target == ignore_index; }

  // Σ w_target over the tokens that count: what Reduction::mean divides by.
  double total_weight(Ids target, int64_t N) const {
    double total = 0;
    for (int64_t n = 0; n < N; ++n) {
      if (!ignores(target[n])) total += weight_of(target[n]);
    }
    return total;
  }

  // Reduction::none keeps the losses of the rows; the others end in one number.
  void reduce(Reduction reduction, const A* losses, int64_t N, double normalizer, A* out) const {
    if (reduction == Reduction::none) return;
    constexpr int64_t chains = 8;  // of dependent additions; the sum's order depends on N alone
    double sums[chains] = {};
    for (int64_t n = 0; n < N; ++n) sums[n % chains] += losses[n];
    double sum = 0;
    for (double s : sums) sum += s;
    // A mean over no weight is undefined for the first of a loss's terms, whatever the others are.
    const bool one_term = smoothing == 0 && z_loss == 0;
    *out = normalizer == 0 && !one_term ? A(__builtin_nan("")) : A(sum / normalizer);
  }

  // softcap * tanh(x / softcap), in place.
  void cap(A* x, int64_t n) const {
    const Vec<A> limit = constant(softcap);
    for_vectors<A>(0, n, [&](int64_t i, auto lanes) {
      store(x + i, limit * tanh(load(x + i, lanes) / limit), lanes);
    });
  }

  A loss(const A* x, RowSoftmax<A> row, int64_t target) const {
    if (ignores(target)) return 0;
    const A log_sum = log(row.sum);
    const double smooth = smoothing > 0 ? smooth_loss(x, row.maximum, log_sum) : 0;
    return loss(x[target], row.maximum, log_sum, target, smooth);
  }

  // Σ_v w_v (-log p_v)
  double smooth_loss(const A* x, A maximum, A log_sum) const {
    const Vec<A> top = constant(maximum), log_of_sum = constant(log_sum);
    double total[1] = {};
    if (class_weight) {  // term by term: of a weight that is infinite two sums would have no
                         // difference
      add_up<A>(V, total, [&](auto, int64_t v, auto lanes) {
        return load(class_weight + v, lanes) * (log_of_sum + (top - load(x + v, lanes)));
      });
      return total[0];
    }
    add_up<A>(V, total,
              [&](auto, int64_t v, auto lanes) { return top - load(x + v, lanes, maximum); });
    return total[0] + double(V) * log_sum;
  }

  // smooth: Σ_v w_v (-log p_v), where there is smoothing.
  A loss(A x_target, A maximum, A log_sum, int64_t target, double smooth) const {
    A total = (1 - smoothing) * weight_of(target) * (log_sum - (x_target - maximum));
    if (smoothing > 0) total += A(double(smoothing) / double(V) * smooth);
    const A log_sum_exp = maximum + log_sum;
    if (z_loss != 0) total += z_loss * log_sum_exp * log_sum_exp;
    return total;
  }

  // The gradient of scale * loss with respect to x_v, before the cap's share of it:
  // factor exp(x_v - maximum) - spread w_v, less `hit` at the target. Below `lowest` the product is
  // taken for 0. Of an ignored row all of it is `factor`: 0, or NaN where 0 times the loss is NaN.
  struct Gradient {
    A factor, spread, hit, lowest;
  };
  Gradient gradient_rule(RowSoftmax<A> row, int64_t target, A scale) const {
    const bool ignored = ignores(target);
    if (ignored) scale = 0;
    const A hit = ignored ? A(0) : scale * (1 - smoothing) * weight_of(target);
    const A spread = scale * smoothing / A(V);
    A pull = hit;
    if (smoothing > 0) pull += spread * class_weight_sum;
    if (z_loss != 0) pull += scale * 2 * z_loss * (row.maximum + log(row.sum));
    const A factor = pull / row.sum;
    return {factor, spread, hit, lowest_argument(factor)};
  }

  // dx = scale * d loss / d x; dx may be x.
  void gradient(const A* x, RowSoftmax<A> row, int64_t target, A scale, A* dx) const {
    const Gradient rule = gradient_rule(row, target, scale);
    if (ignores(target)) return fill(dx, V, rule.factor);
    const Vec<A> factor = constant(rule.factor), lowest = constant(rule.lowest);
    for_vectors<A>(0, V, [&](int64_t v, auto lanes) {
      const Vec<A> e = exp(load(x + v, lanes) - constant(row.maximum), lowest);
      store(dx + v, factor * e, lanes);
    });
    const Vec<A> spread = constant(rule.spread);
    for_vectors<A>(0, smoothing > 0 ? V : 0, [&](int64_t v, auto lanes) {
      const Vec<A> w = class_weight ? load(class_weight + v, lanes) : constant(A(1));
      store(dx + v, load(dx + v, lanes) - spread * w, lanes);
    });
    dx[target] -= rule.hit;
  }

  // The derivative of `cap`, given its results: dx *= 1 - (capped / softcap)².
  void cap_gradient(const A* capped, int64_t n, A* dx) const {
    const Vec<A> inverse = constant(1 / softcap);
    for_vectors<A>(0, n, [&](int64_t v, auto lanes) {
      const Vec<A> ratio = load(capped + v, lanes) * inverse;
      store(dx + v, load(dx + v, lanes) * (constant(A(1)) - ratio * ratio), lanes);
    });
  }
};
