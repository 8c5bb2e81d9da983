// The error bounds that cpu/math-inl.h states for exp and tanh, and their limits.
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels_fixture.h"

namespace {

float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// |got - truth| in units in the last place of the correctly rounded truth, of the largest finite
// number if that is infinite; infinity where either is not a number.
template <class T, class Wide>
double ulps(T got, Wide truth) {
  const T rounded = static_cast<T>(truth);
  if (got == rounded) return 0;
  const T last = std::nextafter(std::numeric_limits<T>::max(), T(0));
  const T magnitude = std::min(std::fabs(rounded), last);
  const Wide ulp = Wide(std::nextafter(magnitude, std::numeric_limits<T>::max())) - magnitude;
  const double error = static_cast<double>(std::fabs(got - truth) / ulp);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

// The largest error over the floats whose bits are first, first + stride, ... up to last.
template <class Kernel, class Truth>
double worst_float(Kernel kernel, Truth truth, uint32_t first, uint32_t last, uint32_t stride) {
  constexpr int block = 4096;
  std::vector<float> in(block), out(block);
  double worst = 0;
  for (uint64_t bits = first; bits <= last;) {
    int count = 0;
    for (; count < block && bits <= last; bits += stride) in[count++] = float_of(uint32_t(bits));
    kernel(count, in.data(), out.data());
    for (int i = 0; i < count; ++i) worst = std::max(worst, ulps(out[i], truth(double(in[i]))));
  }
  return worst;
}

bool exhaustive() { return std::getenv("PYMLP_EXHAUSTIVE") != nullptr; }

// The largest error over all floats, infinities included, or over every 997th of either sign.
template <class Kernel, class Truth>
double worst_of_all_floats(Kernel kernel, Truth truth) {
  const uint32_t stride = exhaustive() ? 1 : 997, infinity = 0x7f800000, minus = 0x80000000;
  return std::max(worst_float(kernel, truth, 0, infinity, stride),
                  worst_float(kernel, truth, minus, minus | infinity, stride));
}

// exp as the kernels have it: 0 where it would be less than the smallest normal number.
template <class T, class Wide>
Wide flushed_exp(Wide x) {
  const Wide e = std::exp(x);
  return e < Wide(std::numeric_limits<T>::min()) ? Wide(0) : e;
}

}  // namespace

TEST(exp_and_tanh_float32_error) {
  fixture::for_each_isa([](const pymlp::KernelTable& table) {
    const pymlp::Kernels<float>& kernels = table.float32;
    const double e = worst_of_all_floats(kernels.exp, flushed_exp<float, double>);
    const double t = worst_of_all_floats(kernels.tanh, [](double x) { return std::tanh(x); });
    std::cout << "  float32 " << table.isa << ": exp " << e << ", tanh " << t << " ulp\n";
    CHECK(e <= 2.0);
    CHECK(t <= 2.0);
  });
}

TEST(exp_and_tanh_float64_error) {
  fixture::for_each_isa([](const pymlp::KernelTable& table) {
    // Emulated processors compute the truth in software.
    const int stride = exhaustive() ? 1 : 9;
    double worst_exp = 0, worst_tanh = 0;
    for (int i = -1000000; i <= 1000000; i += stride) {
      const double x = i * 7.4e-4 + i * 1e-9, y = i * 2.1e-5 + 1e-12,
                   z = std::ldexp(1.0 + i * 4e-7, -(i & 63));
      double e, t, small;
      table.float64.exp(1, &x, &e);
      table.float64.tanh(1, &y, &t);
      table.float64.tanh(1, &z, &small);
      if (x < 709.7) worst_exp = std::max(worst_exp, ulps(e, flushed_exp<double, long double>(x)));
      worst_tanh = std::max(worst_tanh, ulps(t, std::tanh((long double)y)));
      worst_tanh = std::max(worst_tanh, ulps(small, std::tanh((long double)z)));
    }
    std::cout << "  float64 " << table.isa << ": exp " << worst_exp << ", tanh " << worst_tanh
              << " ulp\n";
    CHECK(worst_exp <= 2.0);
    CHECK(worst_tanh <= 2.0);
  });
}

template <class T>
void check_limits(const pymlp::KernelTable& table) {
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const T in[] = {0,    T(-0.0), inf,    -inf,    nan,
                  1000, -1000,   T(9.1), T(-9.1), std::numeric_limits<T>::denorm_min()};
  T e[10], t[10];
  table.of<T>().exp(10, in, e);
  table.of<T>().tanh(10, in, t);
  CHECK_EQ(e[0], T(1));
  CHECK_EQ(e[2], inf);
  CHECK_EQ(e[3], T(0));
  CHECK(std::isnan(e[4]) && std::isnan(t[4]));
  CHECK_EQ(e[5], inf);
  CHECK_EQ(e[6], T(0));
  CHECK(t[1] == 0 && std::signbit(t[1]));
  CHECK(t[2] == 1 && t[3] == -1 && t[5] == 1 && t[6] == -1);
  if (sizeof(T) == 4) CHECK(t[7] == 1 && t[8] == -1);
  CHECK_EQ(t[9], in[9]);
}

TEST(exp_and_tanh_limits) {
  fixture::for_each_isa([](const pymlp::KernelTable& table) {
    check_limits<float>(table);
    check_limits<double>(table);
  });
}

// Over increasing x from `first`, where tanh is still below 1, to beyond where it is 1.
template <class T, class Next>
void check_saturation(const pymlp::KernelTable& table, T first, T last, Next next) {
  std::vector<T> in, out;
  for (T x = first; x < last; x = next(x)) in.push_back(x);
  for (T sign : {T(1), T(-1)}) {
    for (T& x : in) x = std::copysign(x, sign);
    out.resize(in.size());
    table.of<T>().tanh(int64_t(in.size()), in.data(), out.data());
    bool monotone = std::fabs(out[0]) < 1;
    for (size_t i = 1; i < out.size(); ++i)
      monotone = monotone && sign * out[i] >= sign * out[i - 1] && sign * out[i] <= 1;
    CHECK(monotone);
    CHECK_EQ(out.back(), sign);
  }
}

TEST(tanh_is_monotone_where_it_saturates) {
  fixture::for_each_isa([](const pymlp::KernelTable& table) {
    check_saturation(table, 8.5f, 10.5f, [](float x) { return std::nextafter(x, 11.0f); });
    check_saturation(table, 18.0, 20.5, [](double x) { return x + 3.1e-6; });
  });
}
