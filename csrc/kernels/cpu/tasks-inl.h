// How kernels are cut into phases and chunks. How `Parallel` divides a phase affects speed alone,
// never a result; sizes of chunks depend on the problem alone.

// exp and tanh cost about as much as this many multiply-adds.
constexpr int64_t exp_cost = 12;

// body(h0, h1) over [0, H) in units of a cache line of floats, at least once; `cost` is that of one
// column.
template <class Body>
inline void for_columns(const Parallel& parallel, const char* phase, int64_t H, int64_t cost,
                        const Body& body) {
  constexpr int64_t unit = 16;
  parallel.run({phase, larger(1, divide_up(H, unit)), cost * unit},
               [&](int64_t begin, int64_t end) { body(begin * unit, smaller(end * unit, H)); });
}

// What one thread does while the others wait.
template <class Body>
inline void alone(const Parallel& parallel, const char* phase, const Body& body) {
  parallel.run({phase, 1, 0}, [&](int64_t, int64_t) { body(); });
}

// Rows of `width` elements that make a chunk: few enough to stay in the caches between one phase
// and the next, enough to make a phase worth its threads.
inline int64_t rows_per_chunk(int64_t N, int64_t width) {
  constexpr int64_t elements = 262144, fewest = 256, unit = 32;
  return smaller(N, larger(fewest, elements / larger(1, width) / unit * unit));
}

// body(begin, end) for one chunk of [0, N) after the other.
template <class Body>
inline void for_chunks(int64_t N, int64_t chunk, const Body& body) {
  for (int64_t begin = 0; begin < N; begin += chunk) body(begin, smaller(begin + chunk, N));
}
