// The kernels of float32.
#include "kernels/cuda/table-inl.h"

namespace pymlp {
namespace cuda {

template struct EmbedLinearTanhForward<float>;
template struct EmbedLinearTanhBackward<float>;
template struct LinearCrossEntropyPass<float>;
template Operators<float, Queue> operators<float>();

}  // namespace cuda
}  // namespace pymlp
