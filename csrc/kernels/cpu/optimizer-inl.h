// The update rules of torch.optim.SGD and torch.optim.AdamW, in their order of operations.

template <class A>
inline void sgd(const SgdUpdate& u, int64_t n, const A* gradient, A* parameter, A* buffer) {
  const Vec<A> factor = constant(A(u.factor)), decay = constant(A(u.weight_decay));
  const Vec<A> momentum = constant(A(u.momentum)), rate = constant(A(-u.lr));
  for_vectors<A>(0, n, [&](int64_t i, auto lanes) {
    const Vec<A> p = load(parameter + i, lanes);
    Vec<A> g = load(gradient + i, lanes) * factor;
    if (u.weight_decay != 0) g = fma(decay, p, g);
    if (buffer) {
      g = fma(momentum, load(buffer + i, lanes), g);
      store(buffer + i, g, lanes);
    }
    store(parameter + i, fma(rate, g, p), lanes);
  });
}

template <class A>
inline void adamw(const AdamWUpdate& u, int64_t n, const A* gradient, A* parameter, A* exp_avg,
                  A* exp_avg_sq) {
  const double correction1 = 1 - __builtin_pow(u.beta1, double(u.step));
  const double correction2 = 1 - __builtin_pow(u.beta2, double(u.step));
  const Vec<A> factor = constant(A(u.factor)), keep = constant(A(1 - u.lr * u.weight_decay));
  const Vec<A> towards = constant(A(1 - u.beta1)), beta2 = constant(A(u.beta2));
  const Vec<A> weight2 = constant(A(1 - u.beta2)), eps = constant(A(u.eps));
  const Vec<A> root2 = constant(A(__builtin_sqrt(correction2)));
  const Vec<A> rate = constant(A(-u.lr / correction1));
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

// In double precision, in an order that depends on n alone.
template <class A>
inline double sum_of_squares(int64_t n, const A* x) {
  constexpr int64_t chains = 8;  // of dependent additions
  double sums[chains] = {};
  for (int64_t i = 0; i < n; ++i) sums[i % chains] += double(x[i]) * double(x[i]);
  double sum = 0;
  for (double s : sums) sum += s;
  return sum;
}
