// The examples of a step, whose number is read on the device.
#pragma once

#include "kernels/cuda/common-inl.h"
#include "kernels/cuda/training.h"

namespace pymlp {
namespace cuda {

// A thread an id. Of a step or an index out of range the ids are -1, which no token is.
struct GatherStepBatch {
  static constexpr int threads = 256;
  StepBatch batch;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t i = t.block * threads + t.thread, per_example = batch.T + 1;
    if (i >= batch.B * per_example) return;
    const int64_t b = i / per_example, position = i % per_example;
    const int64_t k = *batch.number;
    const int64_t n = k >= 0 && k < batch.steps ? batch.indices[k * batch.B + b] : -1;
    const bool in_range = n >= 0 && n < batch.N;
    if (position < batch.T) {
      const int64_t id = in_range ? id_at(batch.tokens, n * batch.T + position) : -1;
      store(batch.tokens, batch.tokens_out, b * batch.T + position, id);
    } else {
      store(batch.targets, batch.targets_out, b, in_range ? id_at(batch.targets, n) : -1);
    }
  }

 private:
  static PYMLP_DEVICE void store(const Ids& like, void* out, int64_t i, int64_t id) {
    if (like.is_int64) {
      static_cast<int64_t*>(out)[i] = id;
    } else {
      static_cast<int32_t*>(out)[i] = static_cast<int32_t>(id);
    }
  }
};

inline void step_batch(const StepBatch& batch, const Queue& queue) {
  launch(queue, {divide_up(batch.B * (batch.T + 1), GatherStepBatch::threads)},
         GatherStepBatch{batch});
}

}  // namespace cuda
}  // namespace pymlp
