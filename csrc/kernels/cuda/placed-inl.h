// Arrays that a block keeps in shared memory as far as there is room.
#pragma once

#include "kernels/cuda/training_products-inl.h"

namespace pymlp {
namespace cuda {

// Numbers of the parameters' layout that lie in shared memory or, where it is too small, elsewhere.
template <class A>
class Placed {
 public:
  PYMLP_DEVICE Placed(Thread& t, int count, bool in_shared, A* elsewhere)
      : shared_(t.shared<A>(in_shared ? count : 0)), elsewhere_(in_shared ? nullptr : elsewhere) {}

  PYMLP_DEVICE A get(int i) const { return elsewhere_ ? elsewhere_[i] : A(shared_[i]); }
  PYMLP_DEVICE void set(int i, A x) const {
    if (elsewhere_) {
      elsewhere_[i] = x;
    } else {
      shared_[i] = x;
    }
  }
  PYMLP_DEVICE void load(int i, A (&x)[4]) const {
    if (elsewhere_) {
      load_elements(elsewhere_, i, i + 4, A(0), x);
    } else {
      load_four(shared_, i, x);
    }
  }
  PYMLP_DEVICE void store(int i, const A (&x)[4]) const {
    if (elsewhere_) {
      store_elements(elsewhere_, i, i + 4, x);
    } else {
      store_four(shared_, i, x);
    }
  }

 private:
  Shared<A> shared_;
  A* elsewhere_;
};

}  // namespace cuda
}  // namespace pymlp
