// The table of all kernels, each storage type's compiled in a source file of its own.
#include "kernels/cuda/operators.h"
#include "kernels/cuda/simt.h"

namespace pymlp {

const CudaKernelTable& cuda_kernels() {
  static const CudaKernelTable table{cuda::operators<float>(), cuda::operators<double>(),
                                     cuda::operators<bfloat16>(), cuda::operators<float16>()};
  return table;
}

const char* cuda_error_text(int error) { return cuda::error_text(error); }

}  // namespace pymlp
