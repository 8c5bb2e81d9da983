// The ops on CUDA devices. Compiled where there is nvcc, by the host compiler and without CUDA's
// headers, so that the library loads with any torch.
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/accelerator.h>

#include "ops/queue_backend.h"
#include "ops/register_ops.h"
#include "ops/register_training_ops.h"

// Functions of libtorch_cuda, which a torch for the CPU does not have. Such a torch has no CUDA
// tensors either, so that nothing calls them.
extern "C" {
__attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);
__attribute__((weak)) decltype(aoti_torch_cuda_mm_out) aoti_torch_cuda_mm_out;
__attribute__((weak)) decltype(aoti_torch_cuda_addmm_out) aoti_torch_cuda_addmm_out;
}

namespace pymlp {
namespace {

void* current_stream(const Device& device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device.index(), &stream));
  return stream;
}

// Launches go to the current stream of the tensors' device, whichever device is the current one.
class Cuda : torch::stable::accelerator::DeviceGuard, public QueueBackend {
 public:
  Cuda(const char* op, const Device& device)
      : DeviceGuard(device.index()),
        QueueBackend(op, device, current_stream(device),
                     {aoti_torch_cuda_mm_out, aoti_torch_cuda_addmm_out}) {}
};

}  // namespace
}  // namespace pymlp

STABLE_TORCH_LIBRARY_IMPL(pymlp, CUDA, m) {
  pymlp::register_ops<pymlp::Cuda>(m);
  pymlp::register_training_ops<pymlp::Cuda>(m);
}
