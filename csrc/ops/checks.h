// Argument checks shared by all ops. Every message names the op, the argument, what was expected
// and what came.
#pragma once

#include <initializer_list>
#include <optional>

#include "ops/tensors.h"

namespace pymlp {

// A tensor argument with the names that messages need.
struct Argument {
  const char* op;
  const char* name;
  const Tensor& tensor;
};

// float64, float32, bfloat16 or float16.
void check_floating(const Argument& argument);

void check_dtype(const Argument& argument, ScalarType expected, const char* like);

// On the device of another argument.
void check_device(const Argument& argument, const Argument& like);

// With the dtype of another argument, and on its device.
void check_like(const Argument& argument, const Argument& like);

void check_shape(const Argument& argument, std::initializer_list<int64_t> expected);
void check_dim(const Argument& argument, int64_t expected);

// int64 or int32.
void check_integer(const Argument& argument);

// Every id in [0, count), or equal to *ignored. Ids that lie on another device are checked only
// when that is asked for, since it waits for the device; kernels there do without.
void check_ids(const Argument& argument, int64_t count,
               std::optional<int64_t> ignored = std::nullopt);

// Asks for it, or no more; returns what was set before.
bool check_ids_on_devices(bool enabled);

Reduction check_reduction(const char* op, int64_t reduction);

}  // namespace pymlp
