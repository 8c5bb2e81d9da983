#include "ops/tensors.h"

#include <algorithm>
#include <cstdint>
#include <memory>

namespace pymlp {

Tensor empty(const int64_t* shape, int64_t dim, ScalarType dtype) {
  constexpr int64_t most = 64;
  check(dim <= most, "pymlp: a tensor of ", dim, " dimensions; at most ", most);
  int64_t strides[most];
  int64_t stride = 1;
  for (int64_t i = dim - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= shape[i] > 0 ? shape[i] : 1;
  }
  int32_t code = aoti_torch_dtype_float32();
  if (dtype == ScalarType::Double) code = aoti_torch_dtype_float64();
  if (dtype == ScalarType::BFloat16) code = aoti_torch_dtype_bfloat16();
  if (dtype == ScalarType::Half) code = aoti_torch_dtype_float16();
  if (dtype == ScalarType::Byte) code = aoti_torch_dtype_uint8();
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dim, shape, strides, code,
                                                  aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);  // takes ownership
}

Tensor empty(std::initializer_list<int64_t> shape, ScalarType dtype) {
  return empty(shape.begin(), static_cast<int64_t>(shape.size()), dtype);
}

namespace {

// The piece that stays; big allocations cost little beside the work they are for.
constexpr size_t kept_bytes = 512 * 1024;

struct Kept {
  std::unique_ptr<char[]> memory;
  size_t bytes = 0;

  char* at_least(size_t wanted) {
    constexpr size_t line = 64;
    if (bytes < wanted) {
      memory.reset();
      memory.reset(new char[wanted + line]);
      bytes = wanted;
    }
    const auto address = reinterpret_cast<uintptr_t>(memory.get());
    return memory.get() + (line - address % line) % line;
  }
};

}  // namespace

Scratch::Scratch(size_t bytes) {
  thread_local Kept kept;
  if (bytes <= kept_bytes) {
    memory_ = kept.at_least(bytes);
  } else {
    allocated_ = empty({static_cast<int64_t>(bytes)}, ScalarType::Byte);
    memory_ = allocated_->mutable_data_ptr();
  }
}

void TorchParallel::run(const Phase& phase, RangeBody body) const {
  // Below this many multiply-adds a second thread costs more than it brings.
  constexpr int64_t task_cost = 524288;
  const int64_t grain = std::max<int64_t>(1, task_cost / std::max<int64_t>(1, phase.cost));
  if (phase.total <= grain) {
    if (phase.total > 0) body(0, phase.total);
  } else {
    torch::stable::parallel_for(0, phase.total, grain, body);
  }
}

}  // namespace pymlp
