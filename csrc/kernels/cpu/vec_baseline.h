// Vec for every processor: 16-byte vectors in the compiler's own notation (GCC, Clang), which
// become SSE2, NEON or plain scalar code. Included inside a namespace by isa_baseline.cpp.
//
// clang-format off
// The Vec interface, the same in each vec_*.h:
//
//   size                        lanes
//   gemm_rows, gemm_vectors     size of the matrix-product tile that fits the register file
//   broadcast(x)                x in every lane
//   load(p)                     size elements, unaligned
//   load(p, n, rest)            n elements, nothing else is read; `rest` in the other lanes
//   store(p), store(p, n)       likewise; nothing else is written
//   a + b, a - b, a * b, a / b
//   fma(a, b, c)                a * b + c
//   sqrt(a)
//   min(a, b), max(a, b)        b where a or b is NaN: a NaN in b survives
//   abs(a)
//   copysign(magnitude, sign)
//   less_select(a, b, yes, no)  a < b ? yes : no, lane by lane
//   shift_exponent(a)           the bits of a shifted left by the mantissa's width: builds powers of two
//   reduce_add, reduce_max      over the lanes, in a fixed order
// clang-format on

template <class T>
struct BaselineTypes;
template <>
struct BaselineTypes<float> {
  using Bits = int32_t;
  static constexpr int mantissa = 23;
};
template <>
struct BaselineTypes<double> {
  using Bits = int64_t;
  static constexpr int mantissa = 52;
};

template <class T>
struct Vec {
  static constexpr int size = 16 / sizeof(T);
  static constexpr int gemm_rows = 4;
  static constexpr int gemm_vectors = 2;

  using Bits = typename BaselineTypes<T>::Bits;
  typedef T Register __attribute__((vector_size(16)));
  typedef Bits BitRegister __attribute__((vector_size(16)));
  Register v;

  static Vec broadcast(T x) { return {Register{} + x}; }
  static Vec load(const T* p) {
    Vec a;
    __builtin_memcpy(&a.v, p, sizeof(a.v));
    return a;
  }
  static Vec load(const T* p, int n, T rest) {
    T lanes[size];
    for (int i = 0; i < size; ++i) lanes[i] = i < n ? p[i] : rest;
    return load(lanes);
  }
  void store(T* p) const { __builtin_memcpy(p, &v, sizeof(v)); }
  void store(T* p, int n) const {
    for (int i = 0; i < n; ++i) p[i] = v[i];
  }

  friend Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  friend Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
  friend Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  friend Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
  friend Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
  friend Vec sqrt(Vec a) {
    for (int i = 0; i < size; ++i) a.v[i] = static_cast<T>(__builtin_sqrt(a.v[i]));
    return a;
  }
  friend Vec max(Vec a, Vec b) { return select(a.v > b.v, a, b); }
  friend Vec min(Vec a, Vec b) { return select(a.v < b.v, a, b); }
  friend Vec less_select(Vec a, Vec b, Vec yes, Vec no) { return select(a.v < b.v, yes, no); }
  friend Vec abs(Vec a) { return from_bits(a.bits() & ~sign_bit()); }
  friend Vec copysign(Vec magnitude, Vec sign) {
    return from_bits((magnitude.bits() & ~sign_bit()) | (sign.bits() & sign_bit()));
  }
  friend Vec shift_exponent(Vec a) { return from_bits(a.bits() << BaselineTypes<T>::mantissa); }

  T reduce_add() const {
    T sum = v[0];
    for (int i = 1; i < size; ++i) sum += v[i];
    return sum;
  }
  T reduce_max() const {
    T largest = v[0];
    for (int i = 1; i < size; ++i) largest = largest > v[i] ? largest : v[i];
    return largest;
  }

 private:
  BitRegister bits() const { return reinterpret_cast<BitRegister>(v); }
  static Vec from_bits(BitRegister b) { return {reinterpret_cast<Register>(b)}; }
  static BitRegister sign_bit() { return reinterpret_cast<BitRegister>(-Register{}); }
  template <class Mask>
  static Vec select(Mask mask, Vec a, Vec b) {
    const BitRegister m = reinterpret_cast<BitRegister>(mask);
    return from_bits((a.bits() & m) | (b.bits() & ~m));
  }
};
