// The calling thread alone. Not in parallel.h: isa_*.cpp would compile its own copies.
#pragma once

#include "kernels/parallel.h"

namespace pymlp {

class Serial final : public Parallel {
 public:
  void run(int64_t total, int64_t, RangeBody body) const override {
    if (total > 0) body(0, total);
  }
};

}  // namespace pymlp
