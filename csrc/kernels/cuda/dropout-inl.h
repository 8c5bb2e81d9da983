// The masks of dropout, from the step's number on the device.
#pragma once

#include "kernels/cuda/common-inl.h"
#include "kernels/cuda/training.h"

namespace pymlp {
namespace cuda {

// A thread draws four neighbouring units of an example.
template <class A>
struct DrawDropoutMask {
  static constexpr int threads = 256, units = 4;
  DropoutMask<A> mask;
  uint32_t threshold;
  A scale;  // of what is kept

  explicit DrawDropoutMask(const DropoutMask<A>& mask)
      : mask(mask), threshold(dropout_threshold(mask.p)), scale(A(1) / A(1 - mask.p)) {}

  int64_t groups() const { return mask.rows * divide_up(mask.columns, units); }

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t per_row = divide_up(mask.columns, units);
    const int64_t i = t.block * threads + t.thread, n = i / per_row, group = i % per_row;
    if (n >= mask.rows) return;
    const auto numbers = dropout_numbers(mask.seed, *mask.step, mask.layer, n, group);
    A* const row = mask.out + n * mask.columns;
#pragma unroll
    for (int j = 0; j < units; ++j) {
      const int64_t unit = group * units + j;
      if (unit < mask.columns) row[unit] = numbers[j] >= threshold ? scale : A(0);
    }
  }
};

template <class A>
void dropout_mask(const DropoutMask<A>& mask, const Queue& queue) {
  const DrawDropoutMask<A> kernel(mask);
  launch(queue, {divide_up(kernel.groups(), kernel.threads)}, kernel);
}

}  // namespace cuda
}  // namespace pymlp
