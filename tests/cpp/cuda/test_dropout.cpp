// The masks of dropout that a device draws, against those of the engine on the CPU.
#include "device.h"
#include "engine/dropout.h"
#include "kernels/cuda/training.h"

namespace {

using namespace pymlp;

template <class A>
std::vector<A> drawn(int64_t step, DropoutLayer layer, double p, int64_t rows, int64_t columns) {
  const device::TestQueue queue;
  const device::Array<int64_t> number(std::vector<int64_t>{step});
  const device::Array<A> mask(rows * columns);
  cuda_training<A>().dropout_mask({7, layer, p, rows, columns, number.data(), mask.data()}, queue);
  queue.finish();
  return mask.values();
}

template <class A>
void check_masks() {
  for (const DropoutLayer layer : {DropoutLayer::input, DropoutLayer::hidden}) {
    for (const int64_t step : {int64_t(0), int64_t(1) << 33}) {
      for (const int64_t columns : {1, 4, 30}) {
        for (const double p : {0.0, 0.3}) {
          constexpr int64_t rows = 33;
          std::vector<uint8_t> kept(size_t(rows * columns));
          draw_kept(7, step, layer, p, 0, rows, columns, kept.data());
          std::vector<A> expected;
          for (const uint8_t k : kept) expected.push_back(A(k) / A(1 - p));
          CHECK(drawn<A>(step, layer, p, rows, columns) == expected);
        }
      }
    }
  }
  CHECK(drawn<A>(0, DropoutLayer::hidden, 0.3, 5, 0).empty());
}

}  // namespace

TEST(dropout_masks_are_those_of_the_cpu) {
  check_masks<float>();
  check_masks<double>();
}
