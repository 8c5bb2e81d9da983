// linear_cross_entropy on a device: our own products and the library's, in one chunk and in
// several, against the CPU, in every storage type.
#include <sstream>

#include "kernels/cuda/linear_cross_entropy-inl.h"
#include "sides.h"

namespace {

using namespace sides;
using numbers::tolerance;

struct Sizes {
  int64_t N, H, V;
};

template <class S>
struct Case {
  Sizes z;
  int variant;         // which options, types of ids and alignment
  int64_t chunk_rows;  // of the library's products; 0: what the kernels choose
  bool gradients = true;
  std::vector<S> input, weight, bias, class_weight;
  std::vector<int64_t> target;
  CrossEntropyOptions<S> options;

  Case(Sizes z, int variant, int64_t chunk_rows = 0)
      : z(z), variant(variant), chunk_rows(chunk_rows) {
    std::mt19937 random(unsigned(z.N + 100 * z.V + 10000 * z.H + variant));
    input = numbers::normals<S>(random, z.N * z.H);
    weight = numbers::normals<S>(random, z.V * z.H, 0.5f);
    bias = numbers::normals<S>(random, z.V);
    class_weight = numbers::normals<S>(random, z.V);
    for (S& w : class_weight) numbers::convert(float(std::fabs(numbers::value(w))) + 0.25f, w);
    target = numbers::ids(random, z.N, z.V);
    options.reduction = Reduction((variant + 1) % 3);
    if (variant % 2 == 1) options.label_smoothing = 0.125;
    if (variant % 5 == 2) options.z_loss = 0.01;
    if (variant % 4 == 1) options.softcap = 3;
    for (int64_t n = 0; n < z.N; n += 4) target[n] = options.ignore_index;
  }

  std::string name() const {
    std::ostringstream text;
    text << "linear_cross_entropy N=" << z.N << " H=" << z.H << " V=" << z.V
         << " variant=" << variant << " chunk=" << chunk_rows << " bytes=" << sizeof(S);
    return text.str();
  }

  template <class Side>
  Results operator()(const Side& side) const {
    using A = Accumulate<S>;
    using Array = typename Side::template Array<S>;
    const int64_t offset = variant % 4, losses = options.reduction == Reduction::none ? z.N : 1;
    const Array x(input, offset), w(weight, offset);
    const Optional<Side, S> b(bias, variant % 3 != 2, offset), cw(class_weight, variant % 3 != 0);
    const IdArray<Side> y(target, variant % 2 == 0);
    const typename Side::template Array<A> loss(losses);
    const Optional<Side, A> grad(std::vector<A>(size_t(losses), A(0.75)), variant % 6 != 0);
    const Array dx(z.N * z.H, offset), dw(z.V * z.H), db(z.V, offset);
    LinearCrossEntropy<S> p{z.N,      z.H,     z.V,     x.data(),   w.data(),
                            b.data(), y.ids(), options, grad.data()};
    p.options.class_weight = cw.data();
    const LinearCrossEntropyGradients<S> d{dx.data(), dw.data(), b.data() ? db.data() : nullptr};
    run(side, p, loss.data(), gradients ? &d : nullptr);
    side.finish();
    Results results{numbers::values(loss.values())};
    if (!gradients) return results;
    results.push_back(numbers::values(dx.values()));
    results.push_back(numbers::values(dw.values()));
    if (d.bias) results.push_back(numbers::values(db.values()));
    return results;
  }

 private:
  template <class Side>
  void run(const Side& side, const LinearCrossEntropy<S>& p, Accumulate<S>* loss,
           const LinearCrossEntropyGradients<S>* d) const {
    if constexpr (Side::is_device) {
      if (chunk_rows > 0) {
        using Pass = cuda::LinearCrossEntropyPass<S>;
        const auto chunks = cuda::RowChunks::of(p.N, chunk_rows);
        const Scratch<Side> scratch(int64_t(cuda::measure<Pass>(p, gradients, chunks, true)));
        const Pass pass = cuda::make<Pass>(scratch.data(), p, gradients, chunks, true);
        pass.run(loss, d, pass.common_scale(), pass.common_scale(), side.executor());
        return side.finish();
      }
    }
    const auto& k = Side::template kernels<S>();
    const Scratch<Side> scratch(int64_t(k.linear_cross_entropy_workspace(p, d != nullptr)));
    k.linear_cross_entropy(p, loss, d, scratch.data(), side.executor());
    side.finish();
  }
};

// The library's 16-bit products are rounded, as PyTorch's are: logits of up to about 8 by half a
// unit in the last place.
template <class S>
void agrees(const Case<S>& problem) {
  agree(10 * tolerance<S>, problem.name(), problem);
}

template <class S>
void check_sizes() {
  for (int64_t width = 1; width <= 33; ++width) {
    agrees(Case<S>({9, 34 - width, width}, int(width), width % 2 == 0 ? 4 : 0));
  }
  for (const int64_t chunk : {0, 16}) {
    agrees(Case<S>({70, 20, 100}, 1, chunk));
    agrees(Case<S>({33, 7, 2100}, 2, chunk));
    agrees(Case<S>({12, 0, 5}, 3, chunk));
    agrees(Case<S>({0, 3, 5}, 4, chunk));
    agrees(Case<S>({1, 1, 1}, 5, chunk));
  }
}

}  // namespace

TEST(linear_cross_entropy_in_float32) { check_sizes<float>(); }
TEST(linear_cross_entropy_in_float64) { check_sizes<double>(); }
TEST(linear_cross_entropy_in_bfloat16) { check_sizes<bfloat16>(); }
TEST(linear_cross_entropy_in_float16) { check_sizes<float16>(); }

TEST(linear_cross_entropy_without_gradients) {
  for (const int64_t chunk : {0, 8}) {
    for (int variant = 0; variant < 4; ++variant) {
      Case<float> problem({20, 6, 30}, variant, chunk);
      problem.gradients = false;
      agrees(problem);
    }
  }
}

TEST(linear_cross_entropy_of_ignored_rows_only) {
  for (const int64_t chunk : {0, 8}) {
    for (int variant = 0; variant < 3; ++variant) {
      Case<float> problem({20, 6, 30}, variant, chunk);
      for (int64_t& y : problem.target) y = problem.options.ignore_index;
      agrees(problem);
    }
  }
}

TEST(linear_cross_entropy_of_extreme_logits) {
  for (const int64_t chunk : {0, 4}) {
    Case<float> problem({10, 2, 40}, 0, chunk);
    for (size_t i = 0; i < problem.input.size(); i += 3) problem.input[i] *= 1e4f;
    agrees(problem);
  }
}

TEST(linear_cross_entropy_of_a_target_out_of_range_is_nan) {
  for (const int64_t bad : {int64_t(27), int64_t(-1), int64_t(1) << 40}) {
    Case<float> problem({40, 4, 27}, 2);  // Reduction::none
    const Results right = problem(Device());
    problem.target[5] = bad;
    const Results got = problem(Device());
    for (int64_t n = 0; n < 40; ++n) {
      const bool is_bad = n == 5;
      CHECK_EQ(std::isnan(got[0][n]), is_bad);
      CHECK_EQ(std::isnan(got[1][n * 4]), is_bad);
      if (!is_bad) CHECK_EQ(got[1][n * 4], right[1][n * 4]);
    }
    CHECK(std::isnan(got[2][0]));
  }
}

TEST(linear_cross_entropy_of_many_targets) {
  // More rows than one block counts.
  agrees(Case<float>({20000, 1, 1}, 0));
}

TEST(linear_cross_entropy_makes_gradients_over_many_rows_in_parts) {
  for (const int64_t N : {257, 600, 768}) {
    agrees(Case<float>({N, 3, 40}, 0));
    agrees(Case<bfloat16>({N, 3, 5}, 0));
  }
#if !ON_DEVICE
  const auto launches = [](int64_t N) {
    emulation::take_launches();
    Case<float>({N, 3, 40}, 0)(Device());
    std::string all;
    for (const std::string& name : emulation::take_launches()) all += name;
    return all;
  };
  CHECK(launches(256).find("PartsOfProduct") == std::string::npos);
  CHECK(launches(257).find("PartsOfProduct") != std::string::npos);
#endif
}

TEST(linear_cross_entropy_by_large_tiles) {
  Case<float> problem({740, 33, 700}, 2);
  Case<double> wide({740, 33, 700}, 2);
  problem.gradients = wide.gradients = false;
  agrees(problem);
  agrees(wide);
#if !ON_DEVICE
  emulation::take_launches();
  problem(Device());
  CHECK(emulation::take_launches()[0].find("LogitsProduct<float>, 64>") != std::string::npos);
#endif
}

TEST(linear_cross_entropy_chunks_hold_every_row_once) {
  for (const int64_t V : {27, 17904, 1 << 20, 1 << 26}) {
    for (const int64_t N : {1, 33, 8191, 8192, 8193, 1 << 20}) {
      const cuda::RowChunks chunks(N, V);
      CHECK(chunks.rows * chunks.count >= N && chunks.rows * (chunks.count - 1) < N);
      const bool small = N * V <= int64_t(1) << 22;
      CHECK(small ? chunks.count == 1 : chunks.rows % 32 == 0);
      CHECK(small || chunks.rows == 32 || chunks.rows * V <= int64_t(1) << 24);
    }
  }
}

TEST(linear_cross_entropy_starts_nothing_after_an_error) {
  using Pass = cuda::LinearCrossEntropyPass<float>;
  const LinearCrossEntropy<float> p{8, 4, 6, nullptr, nullptr, nullptr, {}, {}, nullptr};
  const LinearCrossEntropyGradients<float> d;
  const auto chunks = cuda::RowChunks::of(p.N, 4);
  const Scratch<Device> scratch(int64_t(cuda::measure<Pass>(p, true, chunks, true)));
  const Pass pass = cuda::make<Pass>(scratch.data(), p, true, chunks, true);
  const device::TestQueue queue;
  queue.record(1);
  queue.record(2);
  pass.run(nullptr, &d, pass.common_scale(), pass.common_scale(), queue);
  CHECK_EQ(queue.matmuls, 0);
  CHECK_EQ(queue.error(), 1);
}

TEST(linear_cross_entropy_never_holds_all_logits) {
  const int64_t N = 8192, H = 100, V = 17904;
  const LinearCrossEntropy<float> p{N, H, V, nullptr, nullptr, nullptr, {}, {}, nullptr};
  const double eager = 3.0 * N * V * sizeof(float);
  CHECK(double(cuda_kernels().float32.linear_cross_entropy_workspace(p, true)) < eager / 20);
  const LinearCrossEntropy<bfloat16> half{N, H, V, nullptr, nullptr, nullptr, {}, {}, nullptr};
  CHECK(double(cuda_kernels().bf16.linear_cross_entropy_workspace(half, true)) < eager / 2 / 10);
}
