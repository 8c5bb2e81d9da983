// How a kernel asks for threads without knowing whose they are.
//
// Every isa_*.cpp includes this header, with flags of its own. No inline function may be compiled
// there under a name that other files share: the linker keeps one copy of it, perhaps one that the
// processor cannot run. So functions are inlined always or named after a lambda of the kernel, and
// no class here overrides a virtual function. tests/test_symbols.py checks the object files.
#pragma once

#include <cstdint>

namespace pymlp {

// A reference to a callable body(begin, end); it must outlive the call it is passed to.
class RangeBody {
 public:
  template <class Body>
  RangeBody(const Body& body)  // NOLINT: implicit, so that a lambda can be passed
      : body_(&body), call_([](const void* b, int64_t begin, int64_t end) {
          (*static_cast<const Body*>(b))(begin, end);
        }) {}

  __attribute__((always_inline)) void operator()(int64_t begin, int64_t end) const {
    call_(body_, begin, end);
  }

 private:
  const void* body_;
  void (*call_)(const void*, int64_t, int64_t);
};

// One phase of a kernel: `total` items, each about `cost` multiply-adds of work.
struct Phase {
  const char* name;
  int64_t total;
  int64_t cost;
};

// Covers [0, phase.total) with disjoint ranges, calls the body once for each, in any order and from
// any thread, and returns when all are done. Bodies don't throw; `run` may, before it calls any, to
// abandon the kernel: kernels own nothing that would be lost.
class Parallel {
 public:
  virtual void run(const Phase& phase, RangeBody body) const = 0;

 protected:
  ~Parallel() = default;
};

}  // namespace pymlp
