// The CPU as a backend of the ops. An op is a function template over its backend, which has
//   Backend(op, device)             ready to run kernels there; op is for messages
//   kernels<S>()                    their table, Operators<S, ...>
//   run(kernel, bytes, arguments)   calls kernel(arguments..., workspace, executor), the workspace
//                                   of so many bytes
//   row_alignment                   bytes that the address of logits has to be a multiple of, where
//                                   it decides the order of sums, and so the last bits
#pragma once

#include "kernels/dispatch.h"
#include "ops/tensors.h"

namespace pymlp {

// Scratch for one kernel call, one at a time in a thread. Up to half a MiB stays with the thread:
// memory that is given back between the steps of a training loop costs a page fault per 4 KiB.
class Scratch {
 public:
  explicit Scratch(size_t bytes);
  void* get() { return memory_; }

 private:
  std::optional<Tensor> allocated_;  // what is too big to stay
  void* memory_;
};

// torch's own thread pool: as many threads as torch.set_num_threads says.
class TorchParallel final : public Parallel {
 public:
  void run(const Phase& phase, RangeBody body) const override;
};

class Cpu {
 public:
  static constexpr uintptr_t row_alignment = 1;

  Cpu(const char*, const Device&) {}

  template <class S>
  const Operators<S, Parallel>& kernels() const {
    return active_kernels().of<S>();
  }

  template <class Kernel, class... Arguments>
  void run(Kernel kernel, size_t workspace, const Arguments&... arguments) const {
    Scratch scratch(workspace);
    kernel(arguments..., scratch.get(), TorchParallel());
  }
};

}  // namespace pymlp
