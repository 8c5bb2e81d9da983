// The calling thread alone. Not in parallel.h: isa_*.cpp would compile its own copies.
#pragma once

#include "kernels/parallel.h"

namespace pymlp {

class Serial final : public Parallel {
 public:
  void run(const Phase& phase, RangeBody body) const override {
    if (phase.total > 0) body(0, phase.total);
  }
};

}  // namespace pymlp
