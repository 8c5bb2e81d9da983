// How a kernel asks for threads without knowing whose they are.
//
// Every isa_*.cpp includes this header, with flags of its own. No inline function may be compiled
// there under a name that other files share: the linker keeps one copy of it, perhaps one that the
// processor cannot run. So functions are inlined always or named after a lambda of the kernel, and
// no class here overrides a virtual function. tests/test_symbols.py checks the object files.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace pymlp {

// A callable body(begin, end). A small one is copied, so that another core finds all of it where it
// finds this; of a large one this is a reference, so it must outlive the call it is passed to.
class RangeBody {
 public:
  RangeBody() = default;

  template <class Body>
  RangeBody(const Body& body)  // NOLINT: implicit, so that a lambda can be passed
      : call_([](const RangeBody& self, int64_t begin, int64_t end) {
          if constexpr (sizeof(Body) <= room) {
            (*reinterpret_cast<const Body*>(self.captured_))(begin, end);
          } else {
            const Body* reference;
            std::memcpy(&reference, self.captured_, sizeof(reference));
            (*reference)(begin, end);
          }
        }) {
    static_assert(std::is_trivially_copyable<Body>::value, "capture pointers and numbers");
    if constexpr (sizeof(Body) <= room) {
      std::memcpy(captured_, &body, sizeof(body));
    } else {
      const Body* const reference = &body;
      std::memcpy(captured_, &reference, sizeof(reference));
    }
  }

  __attribute__((always_inline)) void operator()(int64_t begin, int64_t end) const {
    call_(*this, begin, end);
  }

 private:
  static constexpr size_t room = 40;

  void (*call_)(const RangeBody&, int64_t, int64_t) = nullptr;
  alignas(8) char captured_[room];
};

// The points where a phase may be abandoned: between two of its items, before it begins (its work
// cannot be taken back), or nowhere (the kernel has gone too far).
enum class Stop { anywhere, before, never };

// One phase of a kernel: `total` items, each about `cost` multiply-adds of work.
struct Phase {
  const char* name;
  int64_t total;
  int64_t cost;
  Stop stop = Stop::anywhere;
};

// Covers [0, phase.total) with disjoint ranges, calls the body once for each, in any order and from
// any thread, and returns when all are done. Bodies don't throw; `run` may, where the phase may
// stop, to abandon the kernel: kernels own nothing that would be lost.
class Parallel {
 public:
  virtual void run(const Phase& phase, RangeBody body) const = 0;

 protected:
  ~Parallel() = default;
};

}  // namespace pymlp
