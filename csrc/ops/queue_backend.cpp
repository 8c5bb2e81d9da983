#include "ops/queue_backend.h"

#include <array>

namespace pymlp {
namespace {

using torch::stable::detail::from;

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

// Whether it worked. The op's result, its `out`, comes back as the first entry of the stack.
template <size_t n>
bool call(const char* name, std::array<StableIValue, n> stack) {
  if (torch_call_dispatcher(name, "out", stack.data(), TORCH_ABI_VERSION) != AOTI_TORCH_SUCCESS) {
    return false;
  }
  torch::stable::detail::to<Tensor>(stack[0]);
  return true;
}

}  // namespace

void TorchQueue::matmul(const Matmul& m) const {
  const Tensor a = matrix(m.a, m.M, m.K, m.transpose_a, m.lda, m.type, device_);
  const Tensor b = matrix(m.b, m.K, m.N, m.transpose_b, m.ldb, m.type, device_);
  const Tensor c = matrix(m.c, m.M, m.N, false, m.ldc, m.type, device_);
  const bool done =
      m.accumulate
          ? call<6>("aten::addmm", {from(c), from(a), from(b), from(1.0), from(1.0), from(c)})
          : call<3>("aten::mm", {from(a), from(b), from(c)});
  check(done, "pymlp.", op_, ": torch could not multiply (", m.M, ", ", m.K, ") by (", m.K, ", ",
        m.N, "); it has written the reason to stderr");
}

void TorchQueue::check_launches() const {
  if (const int error = this->error()) {
    check(false, "pymlp.", op_, ": CUDA error ", error, ": ", cuda_error_text(error));
  }
}

}  // namespace pymlp
