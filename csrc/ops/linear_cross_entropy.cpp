#include "ops/linear_cross_entropy.h"

namespace pymlp {

LinearArguments::LinearArguments(const Tensor& weight, const std::optional<Tensor>& bias, int64_t H,
                                 const Argument& like, const Names& names) {
  const Argument matrix{like.op, names.weight, weight};
  check_like(matrix, like);
  check_dim(matrix, 2);
  check_shape(matrix, {weight.size(0), H});
  if (bias) {
    const Argument vector{like.op, names.bias, *bias};
    check_like(vector, like);
    check_shape(vector, {weight.size(0)});
    bias_ = dense(*bias);
  }
  weight_ = dense(weight);
}

}  // namespace pymlp
