// How kernels round: the same in emulation and on a device.
#include "device.h"
#include "kernels/cuda/common-inl.h"

namespace {

using namespace pymlp::cuda;

// out: a b + c, rounded twice; and rounded once.
template <class A>
struct MultiplyAdd {
  static constexpr int threads = warp_size;
  const A* in;
  A* out;

  PYMLP_DEVICE void operator()(Thread& t) const {
    if (t.thread != 0) return;
    out[0] = in[0] * in[1] + in[2];
    out[1] = fused(in[0], in[1], in[2]);
  }
};

// (1 + u) (1 - u) - 1 = -u², of which the rounded product has nothing left.
template <class A>
void check_multiply_add(int bits) {
  const A u = std::ldexp(A(1), -bits);
  const device::Array<A> in(std::vector<A>{1 + u, 1 - u, -1}), out(2);
  const device::TestQueue queue;
  launch(queue, {1}, MultiplyAdd<A>{in.data(), out.data()});
  queue.finish();
  CHECK((out.values() == std::vector<A>{0, -u * u}));
}

}  // namespace

TEST(multiply_adds_are_fused_only_where_the_source_says_so) {
  check_multiply_add<float>(20);
  check_multiply_add<double>(50);
}
