// Softmax cross-entropy of a row of logits: what cross_entropy and linear_cross_entropy share.

inline float log(float x) { return __builtin_logf(x); }
inline double log(double x) { return __builtin_log(x); }

// The maximum of a row and the sum of exp(x - maximum). Subtracting the maximum leaves the softmax
// as it is and keeps exp from overflowing: the loss is stable for logits of any size.
template <class A>
struct RowSoftmax {
  A maximum, sum;
};

// R rows of x (R, V) at once: each row is a chain of dependent steps, and several chains fill the
// time that one would wait.
template <int R, class A>
inline void softmax_of_rows(const A* x, int64_t V, RowSoftmax<A>* rows) {
  constexpr A lowest = -A(__builtin_inf());
  Vec<A> largest[R], sum[R];
  A maximum[R];
  unrolled<R>([&](auto r) { largest[r] = constant(lowest); });
  for_vectors<A>(0, V, [&](int64_t v, auto lanes) {
    unrolled<R>([&](auto r) { largest[r] = max(largest[r], load(x + r * V + v, lanes, lowest)); });
  });
  unrolled<R>([&](auto r) {
    maximum[r] = largest[r].reduce_max();
    sum[r] = constant(A(0));
  });
  for_vectors<A>(0, V, [&](int64_t v, auto lanes) {
    unrolled<R>([&](auto r) {
      sum[r] = sum[r] + exp(load(x + r * V + v, lanes, lowest) - constant(maximum[r]));
    });
  });
  unrolled<R>([&](auto r) { rows[r] = {maximum[r], sum[r].reduce_add()}; });
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
        class_weight_sum(A(V)) {
    if (class_weight) {
      class_weight_sum = 0;
      for (int64_t v = 0; v < V; ++v) class_weight_sum += class_weight[v];
    }
  }

  A weight_of(int64_t target) const { return class_weight ? class_weight[target] : A(1); }

  // Of all classes [begin, end).
  A weight_of(int64_t begin, int64_t end) const {
    if (!class_weight) return A(end - begin);
    A total = 0;
    for (int64_t v = begin; v < end; ++v) total += class_weight[v];
    return total;
  }

  // Σ w_target over the tokens that count: what Reduction::mean divides by.
  double total_weight(Ids target, int64_t N) const {
    double total = 0;
    for (int64_t n = 0; n < N; ++n) {
      if (target[n] != ignore_index) total += weight_of(target[n]);
    }
    return total;
  }

  // softcap * tanh(x / softcap), in place.
  void cap(A* x, int64_t n) const {
    const Vec<A> limit = constant(softcap);
    for_vectors<A>(0, n, [&](int64_t i, auto lanes) {
      store(x + i, limit * tanh(load(x + i, lanes) / limit), lanes);
    });
  }

  A loss(const A* x, RowSoftmax<A> row, int64_t target) const {
    const A log_sum = log(row.sum);
    A smooth = 0;
    for (int64_t v = 0; smoothing > 0 && v < V; ++v) {
      smooth += weight_of(v) * (log_sum - (x[v] - row.maximum));
    }
    return loss(x[target], row.maximum, log_sum, target, smooth);
  }

  // smooth: Σ_v w_v (-log p_v), where there is smoothing.
  A loss(A x_target, A maximum, A log_sum, int64_t target, A smooth) const {
    A total = (1 - smoothing) * weight_of(target) * (log_sum - (x_target - maximum));
    if (smoothing > 0) total += smoothing / A(V) * smooth;
    const A log_sum_exp = maximum + log_sum;
    if (z_loss != 0) total += z_loss * log_sum_exp * log_sum_exp;
    return total;
  }

  // The gradient of scale * loss with respect to x_v, before the cap's share of it:
  // factor exp(x_v - maximum) - spread w_v, less `hit` at the target.
  struct Gradient {
    A factor, spread, hit;
  };
  Gradient gradient_rule(RowSoftmax<A> row, int64_t target, A scale) const {
    const A hit = scale * (1 - smoothing) * weight_of(target);
    const A spread = scale * smoothing / A(V);
    A pull = hit + spread * class_weight_sum;
    if (z_loss != 0) pull += scale * 2 * z_loss * (row.maximum + log(row.sum));
    return {pull / row.sum, spread, hit};
  }

  // dx = scale * d loss / d x; dx may be x.
  void gradient(const A* x, RowSoftmax<A> row, int64_t target, A scale, A* dx) const {
    const Gradient rule = gradient_rule(row, target, scale);
    const Vec<A> factor = constant(rule.factor);
    for_vectors<A>(0, V, [&](int64_t v, auto lanes) {
      const Vec<A> e = exp(load(x + v, lanes) - constant(row.maximum));
      store(dx + v, factor * e, lanes);
    });
    if (smoothing > 0) {
      for (int64_t v = 0; v < V; ++v) dx[v] -= rule.spread * weight_of(v);
    }
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

// Reduction::none keeps the losses of the rows; the others end in one number.
template <class A>
inline void reduce_losses(Reduction reduction, const A* losses, int64_t N, double normalizer,
                          A* out) {
  if (reduction == Reduction::none) return;
  constexpr int64_t chains = 8;  // of dependent additions; the sum's order depends on N alone
  double sums[chains] = {};
  for (int64_t n = 0; n < N; ++n) sums[n % chains] += losses[n];
  double sum = 0;
  for (double s : sums) sum += s;
  *out = A(sum / normalizer);
}
