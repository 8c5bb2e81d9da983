// The kernels of each storage type, which <type>.cu instantiates.
#pragma once

#include "kernels/cuda/queue.h"

namespace pymlp {
namespace cuda {

template <class S>
Operators<S, Queue> operators();

extern template Operators<float, Queue> operators<float>();
extern template Operators<double, Queue> operators<double>();
extern template Operators<bfloat16, Queue> operators<bfloat16>();
extern template Operators<float16, Queue> operators<float16>();

}  // namespace cuda
}  // namespace pymlp
