// The primitives of csrc/kernels/cuda/simt.h on the host, by emulator.h.
#pragma once

#include <cmath>
#include <cstring>
#include <typeinfo>

#include "emulator.h"
#include "kernels/cuda/queue.h"

#define PYMLP_DEVICE inline
#define PYMLP_HOST_DEVICE

namespace pymlp {
namespace cuda {

constexpr int warp_size = emulation::warp_size;
constexpr unsigned all_lanes = 0xffffffffu;

struct Grid {
  int64_t x, y = 1;
};

template <class T, int W>
struct alignas(W * sizeof(T)) Vector {
  T element[W];
};

// An element of a shared array, so that reads and writes are told apart.
template <class T>
class SharedElement {
 public:
  SharedElement(emulation::SharedArray& array, size_t i) : array_(array), i_(i) {}
  operator T() const {  // NOLINT: reads like the element itself
    array_.on_read(i_);
    T x;
    std::memcpy(&x, array_.bytes.data() + i_ * sizeof(T), sizeof(T));
    return x;
  }
  void operator=(T x) const {
    array_.on_write(i_);
    std::memcpy(array_.bytes.data() + i_ * sizeof(T), &x, sizeof(T));
  }
  void operator=(const SharedElement& other) const { *this = T(other); }
  void operator+=(T x) const { *this = T(*this) + x; }
  SharedElement(const SharedElement&) = default;

 private:
  emulation::SharedArray& array_;
  size_t i_;
};

template <class T>
class Shared {
 public:
  explicit Shared(emulation::SharedArray& array) : array_(&array) {}
  SharedElement<T> operator[](int i) const { return {*array_, size_t(int64_t(i))}; }
  template <int W>
  Vector<T, W> vector(int i) const {
    if (i % W != 0) emulation::fail("shared memory: unaligned vector");
    Vector<T, W> v;
    for (int j = 0; j < W; ++j) v.element[j] = (*this)[i + j];
    return v;
  }
  template <int W>
  void store(int i, const Vector<T, W>& v) const {
    if (i % W != 0) emulation::fail("shared memory: unaligned vector");
    for (int j = 0; j < W; ++j) (*this)[i + j] = v.element[j];
  }

 private:
  emulation::SharedArray* array_;
};

class Thread {
 public:
  const int thread, threads, lane, warp, warps;
  const int64_t block, blocks, block_y;

  Thread(const emulation::Launch& launch, int64_t block_x, int64_t block_y, int thread)
      : thread(thread),
        threads(launch.threads),
        lane(thread % warp_size),
        warp(thread / warp_size),
        warps(launch.threads / warp_size),
        block(block_x),
        blocks(launch.blocks_x),
        block_y(block_y) {}

  template <class T>
  Shared<T> shared(int count) {
    return Shared<T>(emulation::shared_array(arrays_++, sizeof(T), size_t(count)));
  }

  // File and line are the caller's.
  void barrier(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    emulation::barrier({file, line});
  }
  void sync_warp(unsigned mask = all_lanes, const char* file = __builtin_FILE(),
                 int line = __builtin_LINE()) const {
    emulation::warp_call(emulation::WarpCall::sync, {file, line}, mask, 0, lane);
  }
  template <class T>
  T shuffle(T x, int from, unsigned mask = all_lanes, const char* file = __builtin_FILE(),
            int line = __builtin_LINE()) const {
    static_assert(sizeof(T) <= 8, "a register or two");
    uint64_t bits = 0;
    std::memcpy(&bits, &x, sizeof(T));
    bits = emulation::warp_call(emulation::WarpCall::shuffle, {file, line}, mask, bits,
                                from % warp_size);
    std::memcpy(&x, &bits, sizeof(T));
    return x;
  }
  template <class T>
  T shuffle_xor(T x, int lanes, unsigned mask = all_lanes, const char* file = __builtin_FILE(),
                int line = __builtin_LINE()) const {
    return shuffle(x, lane ^ lanes, mask, file, line);
  }
  unsigned ballot(bool b, unsigned mask = all_lanes, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) const {
    return unsigned(
        emulation::warp_call(emulation::WarpCall::ballot, {file, line}, mask, b ? 1 : 0, lane));
  }
  void atomic_min(int64_t* address, int64_t x) const { *address = *address < x ? *address : x; }
  void atomic_max(int64_t* address, int64_t x) const { *address = *address > x ? *address : x; }

 private:
  int arrays_ = 0;
};

inline float float_of_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t bits_of_float(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float widen_bits(bfloat16 x) { return float_of_bits(uint32_t(x.bits) << 16); }
inline float widen_bits(float16 x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  const float magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                          : exponent == 0 ? std::ldexp(float(fraction), -24)
                                          : std::ldexp(float(1024 + fraction), exponent - 25);
  return x.bits & 0x8000 ? -magnitude : magnitude;
}
// To nearest, ties to even, as the device rounds.
inline void narrow_bits(float x, bfloat16& out) {
  const uint32_t bits = bits_of_float(x);
  out.bits = std::isnan(x) ? 0x7fff : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline void narrow_bits(float x, float16& out) {
  const float magnitude = std::fabs(x);
  uint32_t half;
  if (std::isnan(x)) {
    half = 0x7fff;
  } else if (magnitude >= 65520.0f) {
    half = 0x7c00;
  } else {
    int exponent = -20;
    if (magnitude > 0) std::frexp(magnitude, &exponent);
    // Units of the last place; a carry out of the fraction raises the exponent as it should.
    const int unit = (exponent - 1 < -14 ? -14 : exponent - 1) - 10;
    const uint32_t units = uint32_t(std::nearbyint(std::ldexp(magnitude, -unit)));
    half = units + (uint32_t(unit + 24) << 10);
  }
  out.bits = uint16_t(half | (std::signbit(x) ? 0x8000 : 0));
}

inline int lowest_bit(unsigned x) { return __builtin_ffs(int(x)) - 1; }

template <class Kernel>
void allow_shared_bytes(const Queue&) {
  emulation::allow_shared_bytes(typeid(Kernel).name());
}

inline int64_t most_shared_bytes() { return emulation::most_shared_bytes(); }

template <class Kernel>
void launch(const Queue& queue, Grid grid, const Kernel& kernel, int64_t shared_bytes = 0) {
  if (queue.error() != 0 || grid.x == 0 || grid.y == 0) return;
  emulation::run({typeid(Kernel).name(), grid.x, grid.y, Kernel::threads, shared_bytes, &kernel,
                  [](const void* k, const emulation::Launch& launch, int64_t block_x,
                     int64_t block_y, int thread) {
                    Thread t(launch, block_x, block_y, thread);
                    (*static_cast<const Kernel*>(k))(t);
                  }});
}

inline const char* error_text(int) { return "emulated"; }

}  // namespace cuda
}  // namespace pymlp
