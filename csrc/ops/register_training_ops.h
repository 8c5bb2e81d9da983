// The ops that only backends of CUDA kernels have. The schemas are in library.cpp.
#pragma once

#include <torch/csrc/stable/library.h>

#include "ops/dropout_mask.h"
#include "ops/step_batch.h"
#include "ops/training.h"

namespace pymlp {

template <class Backend>
void register_training_ops(torch::stable::detail::StableLibrary& m) {
  m.impl("training_shared_bytes", TORCH_BOX(&training_shared_bytes<Backend>));
  m.impl("train_models", TORCH_BOX(&train_models<Backend>));
  m.impl("training_rates", TORCH_BOX(&training_rates<Backend>));
  m.impl("step_batch", TORCH_BOX(&step_batch<Backend>));
  m.impl("mlp_update", TORCH_BOX(&mlp_update<Backend>));
  m.impl("dropout_mask", TORCH_BOX(&dropout_mask<Backend>));
}

}  // namespace pymlp
