// All ops with their functions, for one backend. The schemas are in library.cpp.
#pragma once

#include <torch/csrc/stable/library.h>

#include "ops/cross_entropy.h"
#include "ops/embed_linear_tanh.h"
#include "ops/linear_cross_entropy.h"
#include "ops/mlp_cross_entropy.h"
#include "ops/mlp_logits.h"

namespace pymlp {

template <class Backend>
void register_ops(torch::stable::detail::StableLibrary& m) {
  m.impl("embed_linear_tanh_forward", TORCH_BOX(&embed_linear_tanh_forward<Backend>));
  m.impl("embed_linear_tanh_backward", TORCH_BOX(&embed_linear_tanh_backward<Backend>));
  m.impl("cross_entropy_forward", TORCH_BOX(&cross_entropy_forward<Backend>));
  m.impl("cross_entropy_backward", TORCH_BOX(&cross_entropy_backward<Backend>));
  m.impl("linear_cross_entropy_forward", TORCH_BOX(&linear_cross_entropy_forward<Backend>));
  m.impl("linear_cross_entropy_forward_backward",
         TORCH_BOX(&linear_cross_entropy_forward_backward<Backend>));
  m.impl("mlp_cross_entropy_forward", TORCH_BOX(&mlp_cross_entropy_forward<Backend>));
  m.impl("mlp_cross_entropy_forward_backward",
         TORCH_BOX(&mlp_cross_entropy_forward_backward<Backend>));
  m.impl("mlp_logits", TORCH_BOX(&mlp_logits<Backend>));
}

}  // namespace pymlp
