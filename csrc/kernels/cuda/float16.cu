// The kernels of float16.
#include "kernels/cuda/table-inl.h"

namespace pymlp {
namespace cuda {

template struct EmbedLinearTanhForward<float16>;
template struct EmbedLinearTanhBackward<float16>;
template struct LinearCrossEntropyPass<float16>;
template Operators<float16, Queue> operators<float16>();

}  // namespace cuda
}  // namespace pymlp
