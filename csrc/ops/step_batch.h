// The examples of a step, for backends that run CUDA kernels: check -> allocate -> call.
#pragma once

#include "ops/training.h"

namespace pymlp {

// tokens (B, T) and targets (B) of step number (1) of those of `indices` (K, B) int32, from all
// tokens (N, T) and targets (N).
template <class Backend>
std::tuple<Tensor, Tensor> step_batch(const Tensor& indices, const Tensor& number,
                                      const Tensor& tokens, const Tensor& targets) {
  constexpr const char* op = "step_batch";
  const Argument all{op, "tokens", tokens}, goals{op, "targets", targets};
  check_dim(all, 2);
  check_shape(goals, {tokens.size(0)});
  check_dim({op, "indices", indices}, 2);
  check(indices.scalar_type() == ScalarType::Int, "pymlp.", op, ": indices must be int32");
  check_integer(all);
  check_integer(goals);
  for (const Argument& ids : {all, goals, Argument{op, "indices", indices}}) {
    check_device(ids, all);
    check_in_place(ids);
  }
  check_vector({op, "number", number}, all, ScalarType::Long, 1);
  const Backend backend(op, tokens.device());
  const int64_t B = indices.size(1), T = tokens.size(1);
  const Tensor rows = empty({B, T}, tokens.scalar_type(), tokens.device());
  const Tensor next = empty({B}, targets.scalar_type(), targets.device());
  const StepBatch batch{indices.size(0),
                        tokens.size(0),
                        T,
                        B,
                        ids(tokens),
                        ids(targets),
                        data<int32_t>(indices),
                        data<int64_t>(number),
                        rows.mutable_data_ptr(),
                        next.mutable_data_ptr()};
  const auto launch = [&](void*, const Queue& queue) {
    cuda_training<float>().batch(batch, queue);
  };
  backend.run(launch, 0);
  return {rows, next};
}

}  // namespace pymlp
