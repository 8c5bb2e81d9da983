// The ops of CUDA devices on the CPU: everything that csrc/ops does for a GPU, but for its stream
// and guard, with the kernels in emulation and matrix products by torch. Built with PYMLP_EMULATE
// in place of csrc/ops/cpu.cpp, so that all of Python's tests can run on it.
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include "ops/queue_backend.h"
#include "ops/register_ops.h"
#include "ops/register_training_ops.h"

// The emulator tells the address sanitizer of its fibres; here there is none to be told.
extern "C" void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
extern "C" void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}

namespace {

class Emulated : public pymlp::QueueBackend {
 public:
  Emulated(const char* op, const pymlp::Device& device)
      : QueueBackend(op, device, nullptr, {aoti_torch_cpu_mm_out, aoti_torch_cpu_addmm_out}) {}
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) {
  pymlp::register_ops<Emulated>(m);
  pymlp::register_training_ops<Emulated>(m);
}
