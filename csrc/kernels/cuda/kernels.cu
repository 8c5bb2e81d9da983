// The kernels of CUDA devices.
#include "kernels/cuda/table-inl.h"

namespace pymlp {

const CudaKernelTable& cuda_kernels() {
  static const CudaKernelTable table{cuda::make_operators<float>(), cuda::make_operators<double>(),
                                     cuda::make_operators<bfloat16>(),
                                     cuda::make_operators<float16>()};
  return table;
}

const char* cuda_error_text(int error) { return cuda::error_text(error); }

}  // namespace pymlp
