// The checked arguments of the output layer, shared by linear_cross_entropy and mlp_cross_entropy.
#pragma once

#include "ops/cross_entropy.h"

namespace pymlp {

// weight (V, H), bias (V) or none, both of the given dtype; contiguous after construction.
class LinearArguments {
 public:
  struct Names {
    const char* weight;
    const char* bias;
    const char* like;  // the argument whose dtype and H they must have
  };

  LinearArguments(const char* op, const Tensor& weight, const std::optional<Tensor>& bias,
                  int64_t H, ScalarType dtype, const Names& names);

  int64_t V() const { return weight_.size(0); }

  template <class S>
  LinearCrossEntropy<S> problem(int64_t N, const S* input, const Tensor& target,
                                const CrossEntropyOptions<S>& options,
                                const Accumulate<S>* grad_output) const {
    return {N,           weight_.size(1), V(),        input, data<S>(weight_), data<S>(bias_),
            ids(target), options,         grad_output};
  }

 private:
  Tensor weight_;
  std::optional<Tensor> bias_;
};

}  // namespace pymlp
