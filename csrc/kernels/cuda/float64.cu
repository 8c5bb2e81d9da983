// The kernels of float64.
#include "kernels/cuda/table-inl.h"

namespace pymlp {
namespace cuda {

template struct EmbedLinearTanhForward<double>;
template struct EmbedLinearTanhBackward<double>;
template struct LinearCrossEntropyPass<double>;
template Operators<double, Queue> operators<double>();

}  // namespace cuda
}  // namespace pymlp
