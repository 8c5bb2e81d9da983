// The kernels of bfloat16.
#include "kernels/cuda/table-inl.h"

namespace pymlp {
namespace cuda {

template struct EmbedLinearTanhForward<bfloat16>;
template struct EmbedLinearTanhBackward<bfloat16>;
template struct LinearCrossEntropyPass<bfloat16>;
template Operators<bfloat16, Queue> operators<bfloat16>();

}  // namespace cuda
}  // namespace pymlp
