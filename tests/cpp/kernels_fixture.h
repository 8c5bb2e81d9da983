// What the kernel tests share: every instruction set this machine has, in turn, and scratch memory.
#pragma once

#include <cstdlib>
#include <functional>
#include <iostream>
#include <new>
#include <thread>
#include <vector>

#include "check.h"
#include "kernels/dispatch.h"
#include "kernels/serial.h"

namespace fixture {

// Runs the body with each supported instruction set active, and checks that its code is what runs.
inline void for_each_isa(const std::function<void(const pymlp::KernelTable&)>& body) {
  const std::string before = pymlp::active_kernels().isa;
  for (int i = 0; i < pymlp::isa_count(); ++i) {
    const pymlp::IsaEntry& entry = pymlp::isa_entry(i);
    if (!entry.supported()) continue;
    const int failures = check::failures();
    CHECK(pymlp::force_isa(entry.table->isa));
    CHECK_EQ(&pymlp::active_kernels(), entry.table);
    body(pymlp::active_kernels());
    if (check::failures() != failures) std::cerr << "  with " << entry.table->isa << "\n";
  }
  CHECK(pymlp::force_isa(before.c_str()));
}

// Aligned scratch of exactly the size asked for, so that the address sanitizer sees a step beyond
// it.
class Scratch {
 public:
  explicit Scratch(size_t bytes)
      : memory_(::operator new(bytes > 0 ? bytes : 1, std::align_val_t(64))) {}
  ~Scratch() { ::operator delete(memory_, std::align_val_t(64)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* get() const { return memory_; }

 private:
  void* memory_;
};

// Cuts every phase into as many tasks as it allows, and runs them on `threads` threads in reverse
// order.
class ManyTasks final : public pymlp::Parallel {
 public:
  explicit ManyTasks(int threads) : threads_(threads) {}

  void run(const pymlp::Phase& phase, pymlp::RangeBody body) const override {
    const int64_t total = phase.total;
    std::vector<std::thread> pool;
    for (int t = 0; t < threads_; ++t) {
      pool.emplace_back([=] {
        for (int64_t i = total - 1 - t; i >= 0; i -= threads_) body(i, i + 1);
      });
    }
    for (std::thread& thread : pool) thread.join();
  }

 private:
  int threads_;
};

}  // namespace fixture
