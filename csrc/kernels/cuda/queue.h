// The queue in which CUDA kernels are launched, and which multiplies large matrices for them. This
// header includes nothing of CUDA, so that any host compiler can call the kernels.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/kernels.h"

namespace pymlp {

enum class ScalarKind { float32, float64, bfloat16, float16 };

template <class S>
constexpr ScalarKind scalar_kind() {
  if (std::is_same<S, double>::value) return ScalarKind::float64;
  if (std::is_same<S, bfloat16>::value) return ScalarKind::bfloat16;
  if (std::is_same<S, float16>::value) return ScalarKind::float16;
  return ScalarKind::float32;
}

// A kernel enqueues its launches on `stream` and returns; it never waits, reads nothing back and
// allocates nothing, so its calls may be captured in a CUDA graph. Arrays, scalars (loss,
// grad_output, factor) and the workspace lie on the device.
//
// Launches fail silently. The first error is kept, later launches are left out, and the caller asks
// once, at the end.
class Queue {
 public:
  // C (M, N) = op(A) op(B), or += if accumulate. op(A) is (M, K), op(B) is (K, N), each stored as
  // it is or, if so said, transposed. All row-major, rows ld* elements apart, all of `type`; sums
  // are made in Accumulate of it. M, N and K are never 0. `matmul` may throw.
  struct Matmul {
    int64_t M, N, K;
    const void* a;
    bool transpose_a;
    int64_t lda;
    const void* b;
    bool transpose_b;
    int64_t ldb;
    void* c;
    int64_t ldc;
    bool accumulate;
    ScalarKind type;
  };

  explicit Queue(void* stream) : stream(stream) {}
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  virtual void matmul(const Matmul&) const = 0;

  // Records the result of a launch or of its preparation: a cudaError_t, 0 for success.
  void record(int error) const {
    if (error_ == 0) error_ = error;
  }
  int error() const { return error_; }

  void* const stream;  // cudaStream_t

 protected:
  ~Queue() = default;

 private:
  mutable int error_ = 0;
};

// The meaning of an error.
const char* cuda_error_text(int error);

// The kernels of CUDA devices.
struct CudaKernelTable {
  Operators<float, Queue> float32;
  Operators<double, Queue> float64;
  Operators<bfloat16, Queue> bf16;
  Operators<float16, Queue> f16;

  template <class S>
  const Operators<S, Queue>& of() const {
    if constexpr (std::is_same<S, float>::value) return float32;
    if constexpr (std::is_same<S, double>::value) return float64;
    if constexpr (std::is_same<S, bfloat16>::value) return bf16;
    if constexpr (std::is_same<S, float16>::value) return f16;
  }
};

const CudaKernelTable& cuda_kernels();

}  // namespace pymlp
