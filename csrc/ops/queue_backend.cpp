#include "ops/queue_backend.h"

#include <array>
#include <string>

// Newer than the oldest torch that is supported.
extern "C" __attribute__((weak)) const char* torch_exception_get_what_without_backtrace();

namespace pymlp {
namespace {

std::string last_exception() {
  if (!torch_exception_get_what_without_backtrace) return "torch has written the reason to stderr";
  return torch_exception_get_what_without_backtrace();
}

ScalarType dtype_of(ScalarKind kind) {
  switch (kind) {
    case ScalarKind::float64:
      return ScalarType::Double;
    case ScalarKind::bfloat16:
      return ScalarType::BFloat16;
    case ScalarKind::float16:
      return ScalarType::Half;
    default:
      return ScalarType::Float;
  }
}

// Somebody else's memory as a (rows, columns) tensor; stored as (columns, rows) if transposed.
Tensor matrix(const void* data, int64_t rows, int64_t columns, bool transposed, int64_t ld,
              ScalarKind kind, const Device& device) {
  const std::array<int64_t, 2> sizes{rows, columns};
  const std::array<int64_t, 2> strides{transposed ? 1 : ld, transposed ? ld : 1};
  return torch::stable::from_blob(const_cast<void*>(data), sizes, strides, device, dtype_of(kind));
}

}  // namespace

void TorchQueue::matmul(const Matmul& m) const {
  const Tensor a = matrix(m.a, m.M, m.K, m.transpose_a, m.lda, m.type, device_);
  const Tensor b = matrix(m.b, m.K, m.N, m.transpose_b, m.ldb, m.type, device_);
  const Tensor c = matrix(m.c, m.M, m.N, false, m.ldc, m.type, device_);
  const AOTITorchError error = m.accumulate
                                   ? products_.addmm_out(c.get(), c.get(), a.get(), b.get(), 1, 1)
                                   : products_.mm_out(c.get(), a.get(), b.get());
  if (error != AOTI_TORCH_SUCCESS) {
    check(false, "pymlp.", op_, ": torch could not multiply (", m.M, ", ", m.K, ") by (", m.K, ", ",
          m.N, "): ", last_exception());
  }
}

void TorchQueue::check_launches() const {
  if (const int error = this->error()) {
    check(false, "pymlp.", op_, ": CUDA error ", error, ": ", cuda_error_text(error));
  }
}

}  // namespace pymlp
