// exp and tanh on vectors, without branches or look-up tables.
//
// Error bounds, checked by tests/cpp/test_math.cpp against the C library in twice the precision on
// a dense sample of all inputs (PYMLP_EXHAUSTIVE=1: every float32): at most 2 ulp for exp and for
// tanh. tanh is odd, monotone where it saturates and exactly ±1 beyond |x| = 9.02
// (float64: 19.1); exp overflows to infinity, and is 0 where it would be less than the smallest
// normal number (x < -87.34; float64: -708.4), so that no step of it is subnormal; NaN gives NaN.
//
// exp(x) = 2ⁿ exp(r) with x = n ln 2 + r, |r| <= ln(2)/2, and exp(r) = 1 + r + r² P(r).
// tanh(x) = x + x³ Q(x²) for |x| <= 0.625, and 1 - 2 / (exp(2|x|) + 1) with the sign of x beyond.
// scripts/fit_polynomials.py computes the minimax polynomials P and Q.

template <class T>
struct MathConstants;

template <>
struct MathConstants<float> {
  // 1.5 * 2^23: adding it rounds to the nearest integer and leaves that integer in the low mantissa
  // bits.
  static constexpr float magic = 12582912.0f;
  static constexpr float exponent_bias = 127.0f;
  static constexpr float log2_e = 1.44269504088896341f;
  // ln 2 in two parts; n * ln2_high is exact for every n that occurs.
  static constexpr float ln2_high = 0.693359375f;
  static constexpr float ln2_low = -2.12194440054690583e-4f;
  // 0 and infinity lie beyond. The lowest is the first number whose exp is normal.
  static constexpr float exp_lowest = -87.33654022f, exp_highest = 89.0f;
  static constexpr int mantissa = 23;
  using Bits = uint32_t;
  static constexpr float tanh_saturated = 10.0f;
  static constexpr float p[] = {0.5000000027f, 0.1666657697f, 0.04166637513f, 0.008363181275f,
                                0.001394112437f};
  static constexpr float q[] = {-0.3333333318f, 0.1333330498f,    -0.05395955031f,
                                0.02177099601f, -0.008350008951f, 0.002298942442f};
};

template <>
struct MathConstants<double> {
  static constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double exponent_bias = 1023.0;
  static constexpr double log2_e = 1.44269504088896340736;
  static constexpr double ln2_high = 0.693145751953125;
  static constexpr double ln2_low = 1.42860682030941723212e-6;
  static constexpr double exp_lowest = -708.3964185322641, exp_highest = 710.0;
  static constexpr int mantissa = 52;
  using Bits = uint64_t;
  static constexpr double tanh_saturated = 20.0;
  static constexpr double p[] = {0.500000000000000102,     0.166666666666666745,
                                 0.0416666666666241246,    0.00833333333332220662,
                                 0.00138888889172151675,   0.000198412698865926385,
                                 0.0000248015212939210898, 2.75572423351557118e-6,
                                 2.76200893280450097e-7,   2.5110050381515891e-8};
  static constexpr double q[] = {
      -0.33333333333333333,     0.133333333333330586,      -0.0539682539679143495,
      0.0218694885196998135,    -0.00886323511737391589,   0.00359212191970214801,
      -0.00145577666536406244,  0.000589666643716737777,   -0.000237609016899630951,
      0.0000926061595095304695, -0.0000312387905810607321, 6.50269129179296626e-6};
};

template <class T>
Vec<T> constant(T x) {
  return Vec<T>::broadcast(x);
}

template <class T, int N>
inline Vec<T> horner(Vec<T> x, const T (&coefficients)[N]) {
  Vec<T> sum = constant(coefficients[N - 1]);
  for (int i = N - 2; i >= 0; --i) sum = fma(sum, x, constant(coefficients[i]));
  return sum;
}

template <class T>
inline Vec<T> round_to_integer(Vec<T> x) {
  const Vec<T> magic = constant(MathConstants<T>::magic);
  return (x + magic) - magic;
}

// 2ⁿ for integers n within the exponent range.
template <class T>
inline Vec<T> power_of_two(Vec<T> n) {
  using C = MathConstants<T>;
  return shift_exponent(n + constant(C::magic + C::exponent_bias));
}

// exp(x) = 2ⁿ m
template <class T>
struct Exponential {
  Vec<T> n, m;
};

template <class T>
inline Exponential<T> reduced_exp(Vec<T> x) {
  using C = MathConstants<T>;
  const Vec<T> magic = constant(C::magic);
  const Vec<T> n = fma(x, constant(C::log2_e), magic) - magic;
  const Vec<T> r = fma(n, constant(-C::ln2_low), fma(n, constant(-C::ln2_high), x));
  return {n, fma(r * r, horner(r, C::p), r) + constant(T(1))};
}

// m 2ⁿ, or 0 where x < lowest; where a Vec has no instruction for it. In two factors, since 2ⁿ
// alone may be infinite where the result is not.
template <class T>
inline Vec<T> scale_by_power_of_two(Vec<T> m, Vec<T> n, Vec<T> x, Vec<T> lowest) {
  const Vec<T> half = round_to_integer(n * constant(T(0.5)));
  return less_select(x, lowest, constant(T(0)), m * power_of_two(half) * power_of_two(n - half));
}

// 0 for x below `lowest`, which is exp_lowest or more. Inlined always: a call would save and load
// all that the caller has in registers.
template <class T>
__attribute__((always_inline)) inline Vec<T> exp(Vec<T> x, Vec<T> lowest) {
  using C = MathConstants<T>;
  const Exponential<T> e =
      reduced_exp(max(constant(C::exp_lowest), min(constant(C::exp_highest), x)));
  return scale_by_power_of_two(e.m, e.n, x, lowest);
}

template <class T>
__attribute__((always_inline)) inline Vec<T> exp(Vec<T> x) {
  return exp(x, constant(MathConstants<T>::exp_lowest));
}

// A `lowest` for exp with which factor * exp(x) is 0 or normal: between the first such number and
// 2 ln 2 above it.
template <class T>
inline T lowest_argument(T factor) {
  using C = MathConstants<T>;
  typename C::Bits bits;
  __builtin_memcpy(&bits, &factor, sizeof(T));
  const T exponent = T(int64_t((bits << 1) >> (C::mantissa + 1))) - C::exponent_bias;
  return exponent < 0 ? C::exp_lowest + (1 - exponent) / C::log2_e : C::exp_lowest;
}

template <class T>
inline Vec<T> tanh(Vec<T> x) {
  using C = MathConstants<T>;
  const Vec<T> one = constant(T(1)), magnitude = min(constant(C::tanh_saturated), abs(x));
  const Vec<T> square = x * x;
  const Vec<T> near = fma(x * square, horner(square, C::q), x);
  const Exponential<T> e = reduced_exp(magnitude + magnitude);
  const Vec<T> far = one - constant(T(2)) / fma(e.m, power_of_two(e.n), one);
  return copysign(less_select(magnitude, constant(T(0.625)), near, far), x);
}
