// Loops over arrays in vectors: the tail runs the same code on a vector of which only the first
// lanes touch memory, so there is no second, scalar version of anything.

struct AllLanes {};
struct FirstLanes {
  int count;
};

template <class T>
inline Vec<T> load(const T* p, AllLanes, T = T(0)) {
  return Vec<T>::load(p);
}
template <class T>
inline Vec<T> load(const T* p, FirstLanes first, T rest = T(0)) {
  return Vec<T>::load(p, first.count, rest);
}
template <class T>
inline void store(T* p, Vec<T> v, AllLanes) {
  v.store(p);
}
template <class T>
inline void store(T* p, Vec<T> v, FirstLanes first) {
  v.store(p, first.count);
}

// body(i, lanes) for i = begin, begin + size, ... with lanes covering [begin, end) exactly.
template <class T, class Body>
inline void for_vectors(int64_t begin, int64_t end, const Body& body) {
  int64_t i = begin;
  for (; i + Vec<T>::size <= end; i += Vec<T>::size) body(i, AllLanes{});
  if (i < end) body(i, FirstLanes{static_cast<int>(end - i)});
}

// std::integral_constant, but not shared with code compiled for another instruction set.
template <int I>
struct Index {
  constexpr operator int() const { return I; }
};

template <class Body, int... I>
inline void unrolled(const Body& body, std::integer_sequence<int, I...>) {
  (body(Index<I>{}), ...);
}

// body(0), ..., body(N - 1) with constant arguments. A loop over an array of vectors would leave it
// to the compiler whether that array lives in registers.
template <int N, class Body>
inline void unrolled(const Body& body) {
  unrolled(body, std::make_integer_sequence<int, N>{});
}

template <class T>
inline void fill(T* out, int64_t n, T value) {
  for (int64_t i = 0; i < n; ++i) out[i] = value;
}

// x *= factor
template <class T>
inline void scale(T* x, int64_t n, T factor) {
  if (factor == T(1)) return;
  for_vectors<T>(0, n, [&](int64_t i, auto lanes) {
    store(x + i, load(x + i, lanes) * Vec<T>::broadcast(factor), lanes);
  });
}

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
