#include "ops/checks.h"

#include <atomic>
#include <string>

namespace pymlp {
namespace {

std::atomic<bool> ids_on_devices_are_checked{false};

std::string device_name(const Device& device) {
  if (device.is_cpu()) return "cpu";
  if (device.is_cuda()) return "cuda:" + std::to_string(device.index());
  return "another device";
}

const char* dtype_name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return "float64";
    case ScalarType::Float:
      return "float32";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Half:
      return "float16";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Bool:
      return "bool";
    default:
      return "another dtype";
  }
}

template <class Sizes>
std::string shape_name(const Sizes& sizes) {
  std::string text = "(";
  for (int64_t size : sizes) text += std::to_string(size) + ", ";
  if (text.size() > 1) text.resize(text.size() - 2);
  return text + ")";
}

template <class Id>
int64_t first_bad(const Id* ids, int64_t n, int64_t count, const std::optional<int64_t>& ignored) {
  bool bad = false;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t id = ids[i];
    bad |=
        static_cast<uint64_t>(id) >= static_cast<uint64_t>(count) && !(ignored && id == *ignored);
  }
  if (!bad) return -1;
  for (int64_t i = 0;; ++i) {
    const int64_t id = ids[i];
    if ((id < 0 || id >= count) && !(ignored && id == *ignored)) return i;
  }
}

}  // namespace

void check_floating(const Argument& a) {
  const ScalarType dtype = a.tensor.scalar_type();
  check(dtype == ScalarType::Float || dtype == ScalarType::Double ||
            dtype == ScalarType::BFloat16 || dtype == ScalarType::Half,
        "pymlp.", a.op, ": ", a.name, " must be float64, float32, bfloat16 or float16, got ",
        dtype_name(dtype));
}

void check_dtype(const Argument& a, ScalarType expected, const char* like) {
  const ScalarType dtype = a.tensor.scalar_type();
  check(dtype == expected, "pymlp.", a.op, ": ", a.name, " must be ", dtype_name(expected),
        " like ", like, ", got ", dtype_name(dtype));
}

void check_device(const Argument& a, const Argument& like) {
  const Device device = a.tensor.device(), expected = like.tensor.device();
  if (device != expected) {
    check(false, "pymlp.", a.op, ": ", a.name, " must be on ", device_name(expected), " like ",
          like.name, ", got ", device_name(device));
  }
}

void check_like(const Argument& a, const Argument& like) {
  check_dtype(a, like.tensor.scalar_type(), like.name);
  check_device(a, like);
}

void check_shape(const Argument& a, std::initializer_list<int64_t> expected) {
  bool equal = a.tensor.dim() == static_cast<int64_t>(expected.size());
  int64_t i = 0;
  for (int64_t size : expected) {
    equal = equal && a.tensor.size(i) == size;
    ++i;
  }
  if (!equal) {
    check(false, "pymlp.", a.op, ": ", a.name, " must have shape ", shape_name(expected), ", got ",
          shape_name(a.tensor.sizes()));
  }
}

void check_dim(const Argument& a, int64_t expected) {
  if (a.tensor.dim() != expected) {
    check(false, "pymlp.", a.op, ": ", a.name, " must have ", expected, " dimensions, got shape ",
          shape_name(a.tensor.sizes()));
  }
}

void check_integer(const Argument& a) {
  const ScalarType dtype = a.tensor.scalar_type();
  check(dtype == ScalarType::Long || dtype == ScalarType::Int, "pymlp.", a.op, ": ", a.name,
        " must be int64 or int32, got ", dtype_name(dtype));
}

void check_ids(const Argument& a, int64_t count, std::optional<int64_t> ignored) {
  const bool on_cpu = a.tensor.is_cpu();
  if (!on_cpu && !ids_on_devices_are_checked) return;
  const Device cpu(torch::headeronly::DeviceType::CPU);
  const Tensor here = on_cpu ? a.tensor : torch::stable::to(a.tensor, cpu);
  const Ids values = ids(here);
  const int64_t n = a.tensor.numel();
  const int64_t bad = values.is_int64
                          ? first_bad(static_cast<const int64_t*>(values.data), n, count, ignored)
                          : first_bad(static_cast<const int32_t*>(values.data), n, count, ignored);
  if (bad >= 0) {
    const std::string except = ignored ? " or ignore_index " + std::to_string(*ignored) : "";
    check(false, "pymlp.", a.op, ": ", a.name, " must be in [0, ", count, ")", except, ", got ",
          values[bad], " at flat index ", bad);
  }
}

bool check_ids_on_devices(bool enabled) { return ids_on_devices_are_checked.exchange(enabled); }

Reduction check_reduction(const char* op, int64_t reduction) {
  check(reduction >= 0 && reduction <= 2, "pymlp.", op,
        ": reduction must be 0 (none), 1 (mean) or 2 (sum), got ", reduction);
  return static_cast<Reduction>(reduction);
}

}  // namespace pymlp
