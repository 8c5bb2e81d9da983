// The checked options of the loss, shared by cross_entropy, linear_cross_entropy and
// mlp_cross_entropy.
#pragma once

#include "ops/checks.h"

namespace pymlp {

// The dtype arithmetic is done in, which is also that of losses and their gradients.
ScalarType accumulate_type(ScalarType dtype);

// The target, contiguous, after checking dtype, shape (N) and ids.
Tensor check_target(const Argument& target, int64_t N, int64_t V, int64_t ignore_index);

// The class weights, contiguous, after checking dtype and shape (V).
std::optional<Tensor> check_class_weight(const char* op, const std::optional<Tensor>& weight,
                                         ScalarType dtype, int64_t V);

struct CrossEntropySettings {
  CrossEntropySettings(const char* op, int64_t ignore_index, int64_t reduction,
                       double label_smoothing, double z_loss = 0, double softcap = 0);

  int64_t ignore_index;
  Reduction reduction;
  double label_smoothing, z_loss, softcap;

  template <class S>
  CrossEntropyOptions<S> options(const S* class_weight) const {
    return {class_weight, ignore_index, reduction, label_smoothing, z_loss, softcap};
  }

  // (N) for Reduction::none, else a single number.
  Tensor empty_loss(int64_t N, ScalarType dtype) const;

  // The gradient of the loss, contiguous, after checking that it is shaped like one. dtype: of the
  // input.
  Tensor check_grad_output(const char* op, const Tensor& grad_output, int64_t N,
                           ScalarType dtype) const;
};

}  // namespace pymlp
