// The backend of the ops that runs CUDA kernels (see cpu.h).
#pragma once

#include "kernels/cuda/queue.h"
#include "ops/tensors.h"

namespace pymlp {

// torch.mm and torch.addmm of one kind of device, by the shims that AOTInductor's programs call.
struct MatrixProducts {
  AOTITorchError (*mm_out)(AtenTensorHandle out, AtenTensorHandle a, AtenTensorHandle b);
  AOTITorchError (*addmm_out)(AtenTensorHandle out, AtenTensorHandle addend, AtenTensorHandle a,
                              AtenTensorHandle b, double beta, double alpha);
};

// Large matrix products are torch's own: on CUDA those of cuBLAS, with torch's handle, workspace
// and settings, such as allow_tf32 and deterministic algorithms.
class TorchQueue final : public Queue {
 public:
  TorchQueue(const char* op, const Device& device, void* stream, const MatrixProducts& products)
      : Queue(stream), op_(op), device_(device), products_(products) {}

  void matmul(const Matmul& matmul) const override;

  // Raises RuntimeError if a launch failed.
  void check_launches() const;

 private:
  const char* op_;
  Device device_;
  MatrixProducts products_;
};

class QueueBackend {
 public:
  static constexpr uintptr_t row_alignment = 16;

  QueueBackend(const char* op, const Device& device, void* stream, const MatrixProducts& products)
      : device_(device), queue_(op, device, stream, products) {}

  template <class S>
  const Operators<S, Queue>& kernels() const {
    return cuda_kernels().of<S>();
  }

  // Scratch is torch's: its allocator keeps memory that goes back before the kernels have run for
  // later work on the same stream, and knows when a CUDA graph is being captured.
  template <class Kernel, class... Arguments>
  void run(Kernel kernel, size_t workspace, const Arguments&... arguments) const {
    const Tensor scratch = empty({static_cast<int64_t>(workspace)}, ScalarType::Byte, device_);
    kernel(arguments..., scratch.mutable_data_ptr(), queue_);
    queue_.check_launches();
  }

 private:
  Device device_;
  TorchQueue queue_;
};

}  // namespace pymlp
