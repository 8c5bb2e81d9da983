// Helpers that every op needs between torch tensors and kernels: errors, output tensors, pointers,
// dtypes.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/device.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "kernels/kernels.h"

namespace pymlp {

using torch::headeronly::ScalarType;
using torch::stable::Device;
using torch::stable::Tensor;

// Raises RuntimeError with the joined parts of the message, unless the condition holds. As
// STD_TORCH_CHECK, without the place in this source that it would put in front.
template <class... Parts>
void check(bool condition, const Parts&... message) {
  if (condition) return;
  std::ostringstream text;
  (text << ... << message);
  throw std::runtime_error(text.str());
}

// Uninitialised and contiguous. The C shim skips the dispatcher, about half of the cost of
// torch::stable::empty.
Tensor empty(std::initializer_list<int64_t> shape, ScalarType dtype, const Device& device);
Tensor empty(const int64_t* shape, int64_t dim, ScalarType dtype, const Device& device);

// The tensor itself where it is contiguous and at a multiple of `alignment` bytes, else a copy.
inline Tensor dense(const Tensor& tensor, uintptr_t alignment = 1) {
  if (!tensor.is_contiguous()) return torch::stable::contiguous(tensor);
  const auto address = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  return address % alignment == 0 ? tensor : torch::stable::clone(tensor);
}

template <class S>
constexpr ScalarType scalar_type() {
  if constexpr (std::is_same<S, double>::value) return ScalarType::Double;
  if constexpr (std::is_same<S, float>::value) return ScalarType::Float;
  if constexpr (std::is_same<S, bfloat16>::value) return ScalarType::BFloat16;
  if constexpr (std::is_same<S, float16>::value) return ScalarType::Half;
}

template <class S>
const S* data(const Tensor& tensor) {
  return static_cast<const S*>(tensor.const_data_ptr());
}
template <class S>
const S* data(const std::optional<Tensor>& tensor) {
  return tensor ? data<S>(*tensor) : nullptr;
}
template <class S>
S* mutable_data(const Tensor& tensor) {
  return static_cast<S*>(tensor.mutable_data_ptr());
}

inline Ids ids(const Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.scalar_type() == ScalarType::Long};
}

// body(S{}) with S the storage type of dtype. The caller has checked it with check_floating.
template <class Body>
auto with_storage_type(ScalarType dtype, const Body& body) {
  switch (dtype) {
    case ScalarType::Double:
      return body(double{});
    case ScalarType::BFloat16:
      return body(bfloat16{});
    case ScalarType::Half:
      return body(float16{});
    default:
      return body(float{});
  }
}

}  // namespace pymlp
