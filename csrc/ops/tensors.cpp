#include "ops/tensors.h"

namespace pymlp {

namespace {

int32_t code_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return aoti_torch_dtype_float32();
    case ScalarType::Double:
      return aoti_torch_dtype_float64();
    case ScalarType::BFloat16:
      return aoti_torch_dtype_bfloat16();
    case ScalarType::Half:
      return aoti_torch_dtype_float16();
    case ScalarType::Byte:
      return aoti_torch_dtype_uint8();
    case ScalarType::Int:
      return aoti_torch_dtype_int32();
    case ScalarType::Long:
      return aoti_torch_dtype_int64();
    default:
      check(false, "pymlp: no tensors are made of dtype ", static_cast<int>(dtype));
      return 0;
  }
}

}  // namespace

Tensor empty(const int64_t* shape, int64_t dim, ScalarType dtype, const Device& device) {
  constexpr int64_t most = 64;
  check(dim <= most, "pymlp: a tensor of ", dim, " dimensions; at most ", most);
  int64_t strides[most];
  int64_t stride = 1;
  for (int64_t i = dim - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= shape[i] > 0 ? shape[i] : 1;
  }
  const int32_t type =
      device.is_cuda() ? aoti_torch_device_type_cuda() : aoti_torch_device_type_cpu();
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dim, shape, strides, code_of(dtype), type, device.index(), &handle));
  return Tensor(handle);  // takes ownership
}

Tensor empty(std::initializer_list<int64_t> shape, ScalarType dtype, const Device& device) {
  return empty(shape.begin(), static_cast<int64_t>(shape.size()), dtype, device);
}

}  // namespace pymlp
