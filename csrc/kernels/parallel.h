// How a kernel asks for threads without knowing whose they are.
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

  void operator()(int64_t begin, int64_t end) const { call_(body_, begin, end); }

 private:
  const void* body_;
  void (*call_)(const void*, int64_t, int64_t);
};

// Covers [0, total) with disjoint ranges of at least `grain` items (the last may be shorter), calls
// the body once for each, in any order and from any thread, and returns when all are done. Bodies
// don't throw.
class Parallel {
 public:
  virtual void run(int64_t total, int64_t grain, RangeBody body) const = 0;

 protected:
  ~Parallel() = default;
};

class Serial final : public Parallel {
 public:
  void run(int64_t total, int64_t, RangeBody body) const override {
    if (total > 0) body(0, total);
  }
};

}  // namespace pymlp
