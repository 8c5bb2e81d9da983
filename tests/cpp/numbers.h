// Numbers of every storage type, on their way from and to those of the tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/half.h"

namespace numbers {

using pymlp::bfloat16;
using pymlp::float16;

constexpr float infinity = std::numeric_limits<float>::infinity();

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Exact for zero, infinity and the numbers that float16 holds as normal ones.
inline void convert(float x, float& out) { out = x; }
inline void convert(float x, double& out) { out = x; }
inline void convert(float x, bfloat16& out) { out.bits = uint16_t(bits_of(x) >> 16); }
inline void convert(float x, float16& out) {
  const uint32_t magnitude = bits_of(std::fabs(x));
  const uint32_t half = x == 0                    ? 0
                        : std::fabs(x) > 65504.0f ? 0x7c00u
                                                  : (magnitude - 0x38000000u) >> 13;
  out.bits = uint16_t(half | (std::signbit(x) ? 0x8000u : 0u));
}

inline double value(float x) { return x; }
inline double value(double x) { return x; }
inline double value(bfloat16 x) { return float_of(uint32_t(x.bits) << 16); }
inline double value(float16 x) {
  const int exponent = (x.bits >> 10) & 31, fraction = x.bits & 1023;
  const double magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                           : exponent == 0 ? std::ldexp(fraction, -24)
                                           : std::ldexp(1024 + fraction, exponent - 25);
  return x.bits & 0x8000 ? -magnitude : magnitude;
}

// Two roundings of nearly equal numbers can differ by a unit in the last place.
template <class S>
constexpr double tolerance = 2e-6;
template <>
constexpr double tolerance<double> = 1e-13;
template <>
constexpr double tolerance<bfloat16> = 1.0 / 128;
template <>
constexpr double tolerance<float16> = 1.0 / 1024;

template <class T>
std::vector<double> values(const std::vector<T>& numbers) {
  std::vector<double> out;
  for (T x : numbers) out.push_back(value(x));
  return out;
}

// `count` multiples of 1/8 between -2 and 2, which all storage types hold.
template <class S>
std::vector<S> eighths(std::mt19937& random, int64_t count) {
  std::vector<S> out(count);
  for (S& x : out) convert(float(int(random() % 33) - 16) / 8, x);
  return out;
}

// `count` normal numbers of a standard deviation, without those too small for a normal float16.
template <class S>
std::vector<S> normals(std::mt19937& random, int64_t count, float deviation = 1) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<S> out(count);
  for (S& x : out) {
    const float number = normal(random);
    convert(std::fabs(number) < 1e-4f ? 0.0f : number, x);
  }
  return out;
}

inline std::vector<int64_t> ids(std::mt19937& random, int64_t count, int64_t limit) {
  std::vector<int64_t> out(count);
  for (int64_t& x : out) x = int64_t(random() % uint64_t(limit));
  return out;
}

}  // namespace numbers
