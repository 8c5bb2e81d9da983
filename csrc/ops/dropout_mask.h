// The masks of dropout, for backends that run CUDA kernels: check -> allocate -> call.
#pragma once

#include "ops/training.h"

namespace pymlp {

// (rows, columns) in the dtype of `like`: 0 for the units that a step, whose number is read on the
// device, drops, 1 / (1 - p) for the others. hidden: of the hidden layer, else of its input.
template <class Backend>
Tensor dropout_mask(const Tensor& like, const Tensor& step, int64_t seed, bool hidden, double p,
                    int64_t rows, int64_t columns) {
  constexpr const char* op = "dropout_mask";
  check_vector({op, "step", step}, {op, "like", like}, ScalarType::Long, 1);
  check(p >= 0 && p < 1, "pymlp.", op, ": p must be in [0, 1), got ", p);
  check(rows >= 0 && columns >= 0, "pymlp.", op, ": rows and columns must not be negative");
  const Backend backend(op, like.device());
  const Tensor mask = empty({rows, columns}, like.scalar_type(), like.device());
  with_trained_type(op, like, [&](auto tag) {
    using A = decltype(tag);
    const DropoutMask<A> problem{static_cast<uint64_t>(seed),
                                 hidden ? DropoutLayer::hidden : DropoutLayer::input,
                                 p,
                                 rows,
                                 columns,
                                 data<int64_t>(step),
                                 mutable_data<A>(mask)};
    const auto launch = [&](void*, const Queue& queue) {
      cuda_training<A>().dropout_mask(problem, queue);
    };
    backend.run(launch, 0);
  });
  return mask;
}

}  // namespace pymlp
