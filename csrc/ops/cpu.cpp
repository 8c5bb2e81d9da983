#include "ops/cpu.h"

#include <algorithm>
#include <cstdint>
#include <memory>

#include "ops/register_ops.h"

namespace pymlp {
namespace {

// The piece that stays; big allocations cost little beside the work they are for.
constexpr size_t kept_bytes = 512 * 1024;

struct Kept {
  std::unique_ptr<char[]> memory;
  size_t bytes = 0;

  char* at_least(size_t wanted) {
    constexpr size_t line = 64;
    if (bytes < wanted) {
      memory.reset();
      memory.reset(new char[wanted + line]);
      bytes = wanted;
    }
    const auto address = reinterpret_cast<uintptr_t>(memory.get());
    return memory.get() + (line - address % line) % line;
  }
};

}  // namespace

Scratch::Scratch(size_t bytes) {
  thread_local Kept kept;
  if (bytes <= kept_bytes) {
    memory_ = kept.at_least(bytes);
  } else {
    allocated_ = empty({static_cast<int64_t>(bytes)}, ScalarType::Byte,
                       Device(torch::headeronly::DeviceType::CPU));
    memory_ = allocated_->mutable_data_ptr();
  }
}

void TorchParallel::run(const Phase& phase, RangeBody body) const {
  // Below this many multiply-adds a second thread costs more than it brings.
  constexpr int64_t task_cost = 524288;
  const int64_t grain = std::max<int64_t>(1, task_cost / std::max<int64_t>(1, phase.cost));
  if (phase.total <= grain) {
    if (phase.total > 0) body(0, phase.total);
  } else {
    torch::stable::parallel_for(0, phase.total, grain, body);
  }
}

}  // namespace pymlp

STABLE_TORCH_LIBRARY_IMPL(pymlp, CPU, m) { pymlp::register_ops<pymlp::Cpu>(m); }
