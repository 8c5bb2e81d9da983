// Products by tensor cores, against sums in float64.
#include "../numbers.h"
#include "device.h"
#include "kernels/cuda/tensor_cores-inl.h"

namespace {

using namespace pymlp::cuda;

constexpr int rows = 32, J = 24;  // the last of the tiles is left out
constexpr int along = 216;        // rows of factors that lie along k
constexpr int across = 40;        // and of those that lie by columns

// out (16, J) = Σ a(row, k) b(column, k); a and b as they lie in shared memory.
template <bool a_columns, bool b_columns>
struct Product {
  static constexpr int threads = warp_size;
  int K, a_size, b_size;
  const float *a, *b;
  float* out;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const Shared<float> left = t.shared<float>(a_size), right = t.shared<float>(b_size);
    for (int i = t.thread; i < a_size; i += threads) left[i] = a[i];
    for (int i = t.thread; i < b_size; i += threads) right[i] = b[i];
    t.barrier();  // both factors
    TensorTile<2, 4> tile(0, 0);
    tile.add(t, TensorFactor<a_columns>{left, a_columns ? across : along},
             TensorFactor<b_columns>{right, b_columns ? across : along}, J, 0, K);
    tile.for_elements(t, J, [&](int i, int j, float sum) { out[i * J + j] = sum; });
  }
};

// A factor of `count` rows: (i, k) in float64, and as it lies.
struct Factor {
  bool columns;
  int K;
  std::vector<float> data;

  Factor(std::mt19937& random, bool columns, int K, int count, bool positive)
      : columns(columns), K(K), data(size_t(columns ? K * across : count * along)) {
    const std::vector<float> x = numbers::normals<float>(random, int64_t(data.size()));
    for (size_t i = 0; i < data.size(); ++i) data[i] = positive ? std::fabs(x[i]) : x[i];
  }
  float& at(int i, int k) { return data[size_t(columns ? k * across + i : i * along + k)]; }
};

template <bool a_columns, bool b_columns>
std::vector<float> product(const Factor& a, const Factor& b) {
  const device::Array<float> left(a.data), right(b.data), out(rows * J);
  const device::TestQueue queue;
  using Kernel = Product<a_columns, b_columns>;
  allow_shared_bytes<Kernel>(queue);
  launch(queue, {1},
         Kernel{a.K, int(a.data.size()), int(b.data.size()), left.data(), right.data(), out.data()},
         int64_t(4 * (a.data.size() + b.data.size())));
  queue.finish();
  return out.values();
}

// As accurate as float32 multiplied and added: of the sum of all terms' absolute values less than
// four of its units in the last place are lost. One TF32 product would lose hundreds.
template <bool a_columns, bool b_columns>
void is_accurate(int K, bool positive) {
  std::mt19937 random(3);
  Factor a(random, a_columns, K, rows, positive), b(random, b_columns, K, J, positive);
  const std::vector<float> got = product<a_columns, b_columns>(a, b);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < J; ++j) {
      double sum = 0, size = 0;
      for (int k = 0; k < K; ++k) {
        const double term = double(a.at(i, k)) * double(b.at(j, k));
        sum += term;
        size += std::fabs(term);
      }
      const double error = std::fabs(double(got[size_t(i * J + j)]) - sum);
      if (!CHECK(error <= std::ldexp(size, -21))) {
        std::cerr << "  element " << i << ", " << j << ": off by " << error / size << "\n";
        return;
      }
    }
  }
}

}  // namespace

TEST(tensor_products_have_the_accuracy_of_float32) {
  for (const int K : {32, 200}) {
    for (const bool positive : {false, true}) {
      is_accurate<false, false>(K, positive);
      is_accurate<false, true>(K, positive);
      is_accurate<true, false>(K, positive);
      is_accurate<true, true>(K, positive);
    }
  }
}

TEST(tensor_products_keep_what_is_not_finite_in_its_row) {
  for (const float bad : {numbers::infinity, NAN}) {
    std::mt19937 random(4);
    Factor a(random, false, 200, rows, false), b(random, true, 200, J, false);
    a.at(5, 77) = bad;
    const std::vector<float> got = product<false, true>(a, b);
    for (int i = 0; i < rows * J; ++i) CHECK_EQ(std::isnan(got[size_t(i)]), i / J == 5);
  }
}

#if !ON_DEVICE
// Those of a device, too, which have all bits set.
TEST(a_split_number_keeps_every_nan) {
  for (const uint32_t bits : {0x7fffffffu, 0x7fc00000u, 0x7f800001u, 0xffffffffu}) {
    const SplitNumber x(numbers::float_of(bits));
    CHECK(std::isnan(x.big) || std::isnan(x.small));
  }
}
#endif
