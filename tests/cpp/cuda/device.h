// What kernel tests need of a device, the same for the emulation and for CUDA: arrays, a queue, and
// numbers in every storage type.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <vector>

#include "../check.h"
#include "kernels/cuda/simt.h"
#include "kernels/dispatch.h"
#include "kernels/serial.h"

#if defined(__CUDACC__)
#define ON_DEVICE 1
#else
#define ON_DEVICE 0
#endif

namespace device {

inline void check_error(int error) {
  if (error != 0) {
    std::cerr << "device error: " << pymlp::cuda_error_text(error) << "\n";
    std::abort();
  }
}

// Bytes on the device: exactly as many as asked for, filled with ones, which are NaNs in every
// type; a multiple of 64 is the address of byte `offset`.
class Memory {
 public:
  explicit Memory(size_t bytes, size_t offset = 0) : bytes_(bytes), offset_(offset) {
    const size_t all = bytes + offset;
#if ON_DEVICE
    check_error(cudaMalloc(&base_, all > 0 ? all : 1));
    check_error(cudaMemset(base_, 0xff, all));
#else
    base_ = ::operator new(all, std::align_val_t(64));
    std::memset(base_, 0xff, all);
#endif
  }
  ~Memory() {
#if ON_DEVICE
    cudaFree(base_);
#else
    ::operator delete(base_, std::align_val_t(64));
#endif
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* get() const { return static_cast<char*>(base_) + offset_; }
  void write(const void* from) {
#if ON_DEVICE
    check_error(cudaMemcpy(get(), from, bytes_, cudaMemcpyHostToDevice));
#else
    if (bytes_ > 0) std::memcpy(get(), from, bytes_);
#endif
  }
  void read(void* to) const {
#if ON_DEVICE
    check_error(cudaMemcpy(to, get(), bytes_, cudaMemcpyDeviceToHost));
#else
    if (bytes_ > 0) std::memcpy(to, get(), bytes_);
#endif
  }

 private:
  void* base_ = nullptr;
  size_t bytes_, offset_;
};

// `offset`: elements by which the array misses the alignment of vectors.
template <class T>
class Array {
 public:
  explicit Array(int64_t count, int64_t offset = 0)
      : count_(count), memory_(size_t(count) * sizeof(T), size_t(offset) * sizeof(T)) {}
  explicit Array(const std::vector<T>& values, int64_t offset = 0)
      : Array(int64_t(values.size()), offset) {
    memory_.write(values.data());
  }
  T* data() const { return static_cast<T*>(memory_.get()); }
  std::vector<T> values() const {
    std::vector<T> out(static_cast<size_t>(count_));
    memory_.read(out.data());
    return out;
  }

 private:
  int64_t count_;
  Memory memory_;
};

// One thread an element, in plain loops.
template <class S>
struct PlainMatmul {
  static constexpr int threads = 64;
  pymlp::Queue::Matmul m;

  static PYMLP_DEVICE void widen(float x, float& out) { out = x; }
  static PYMLP_DEVICE void widen(double x, double& out) { out = x; }
  template <class H>
  static PYMLP_DEVICE void widen(H x, float& out) {
    out = pymlp::cuda::widen_bits(x);
  }
  static PYMLP_DEVICE void narrow(float x, float& out) { out = x; }
  static PYMLP_DEVICE void narrow(double x, double& out) { out = x; }
  template <class H>
  static PYMLP_DEVICE void narrow(float x, H& out) {
    pymlp::cuda::narrow_bits(x, out);
  }

  PYMLP_DEVICE void operator()(pymlp::cuda::Thread& t) const {
    using A = pymlp::Accumulate<S>;
    const int64_t i = t.block * threads + t.thread;
    if (i >= m.M * m.N) return;
    const int64_t row = i / m.N, column = i % m.N;
    const S* a = static_cast<const S*>(m.a);
    const S* b = static_cast<const S*>(m.b);
    S* c = static_cast<S*>(m.c) + row * m.ldc + column;
    A sum = 0;
    for (int64_t k = 0; k < m.K; ++k) {
      A x, y;
      widen(a[m.transpose_a ? k * m.lda + row : row * m.lda + k], x);
      widen(b[m.transpose_b ? column * m.ldb + k : k * m.ldb + column], y);
      sum += x * y;
    }
    if (m.accumulate) {
      A old;
      widen(*c, old);
      sum += old;
    }
    narrow(sum, *c);
  }
};

class TestQueue final : public pymlp::Queue {
 public:
  TestQueue() : Queue(nullptr) {}

  void matmul(const Matmul& m) const override {
    CHECK(m.M > 0 && m.N > 0 && m.K > 0);
    ++matmuls;
    switch (m.type) {
      case pymlp::ScalarKind::float32:
        return start<float>(m);
      case pymlp::ScalarKind::float64:
        return start<double>(m);
      case pymlp::ScalarKind::bfloat16:
        return start<pymlp::bfloat16>(m);
      case pymlp::ScalarKind::float16:
        return start<pymlp::float16>(m);
    }
  }

  // Waits for all that was launched.
  void finish() const {
    check_error(error());
#if ON_DEVICE
    check_error(cudaDeviceSynchronize());
#endif
  }

  mutable int matmuls = 0;

 private:
  template <class S>
  void start(const Matmul& m) const {
    constexpr int64_t threads = PlainMatmul<S>::threads;
    pymlp::cuda::launch(*this, {(m.M * m.N + threads - 1) / threads}, PlainMatmul<S>{m});
  }
};

}  // namespace device
