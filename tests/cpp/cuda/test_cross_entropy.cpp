// cross_entropy on a device: against the CPU, in every storage type.
#include <sstream>

#include "kernels/cuda/cross_entropy-inl.h"
#include "sides.h"

namespace {

using namespace sides;
using numbers::tolerance;

template <class S>
struct Case {
  int64_t N, V;
  int variant = 0;          // which options, types of ids and alignment
  int64_t most_blocks = 0;  // of a launch; 0: what the kernels choose
  std::vector<S> input, class_weight;
  std::vector<int64_t> target;
  CrossEntropyOptions<S> options;

  Case(int64_t N, int64_t V, int variant) : N(N), V(V), variant(variant) {
    std::mt19937 random(unsigned(N * 1000 + V * 10 + variant));
    input = numbers::normals<S>(random, N * V, 2);
    class_weight = numbers::normals<S>(random, V);
    for (S& w : class_weight) numbers::convert(float(std::fabs(numbers::value(w))) + 0.25f, w);
    target = numbers::ids(random, N, V);
    options.reduction = Reduction(variant % 3);
    if (variant % 2 == 1) options.label_smoothing = 0.1;
    if (variant % 5 == 2) options.z_loss = 0.01;
    if (variant % 4 == 3) options.ignore_index = V / 2;
    for (int64_t n = 0; n < N; n += 3) target[n] = options.ignore_index;
  }

  bool has_class_weight() const { return variant % 3 != 0; }
  int64_t offset() const { return variant % 4; }

  std::string name() const {
    std::ostringstream text;
    text << "cross_entropy N=" << N << " V=" << V << " variant=" << variant
         << " bytes=" << sizeof(S);
    return text.str();
  }

  template <class Side>
  Results operator()(const Side& side) const {
    using A = Accumulate<S>;
    const typename Side::template Array<S> x(input, offset()), dinput(N * V, variant % 8 / 2);
    const Optional<Side, S> w(class_weight, has_class_weight(), offset());
    const IdArray<Side> y(target, variant % 2 == 0);
    CrossEntropy<S> problem{N, V, x.data(), y.ids(), options};
    problem.options.class_weight = w.data();
    const int64_t losses = options.reduction == Reduction::none ? N : 1;
    const typename Side::template Array<A> loss(losses), softmax(2 * N),
        grad(std::vector<A>(size_t(losses), A(0.75)));
    run(side, problem, loss.data(), softmax.data(), grad.data(), dinput.data());
    return {numbers::values(loss.values()), numbers::values(softmax.values()),
            numbers::values(dinput.values())};
  }

 private:
  template <class Side>
  void run(const Side& side, const CrossEntropy<S>& p, Accumulate<S>* loss, Accumulate<S>* softmax,
           const Accumulate<S>* grad, S* dinput) const {
    if constexpr (Side::is_device) {
      if (most_blocks > 0) {
        using Forward = cuda::CrossEntropyForward<S>;
        using Backward = cuda::CrossEntropyBackward<S>;
        const Scratch<Side> first(int64_t(cuda::measure<Forward>(p, most_blocks))),
            second(int64_t(cuda::measure<Backward>(p, most_blocks)));
        cuda::make<Forward>(first.data(), p, most_blocks).run(loss, softmax, side.executor());
        cuda::make<Backward>(second.data(), p, most_blocks)
            .run(softmax, grad, dinput, side.executor());
        return side.finish();
      }
    }
    const auto& k = Side::template kernels<S>();
    const Scratch<Side> first(int64_t(k.cross_entropy_forward_workspace(p))),
        second(int64_t(k.cross_entropy_backward_workspace(p)));
    k.cross_entropy_forward(p, loss, softmax, first.data(), side.executor());
    k.cross_entropy_backward(p, softmax, grad, dinput, second.data(), side.executor());
    side.finish();
  }
};

template <class S>
void agrees(const Case<S>& problem) {
  agree(tolerance<S>, problem.name(), problem);
}

template <class S>
void check_all_sizes() {
  for (int64_t V = 1; V <= 33; ++V) agrees(Case<S>(V % 4 == 0 ? 70 : 5, V, int(V)));
  for (const int64_t V : {65, 100, 130, 517}) {
    for (int variant = 0; variant < 4; ++variant) agrees(Case<S>(9 + variant, V, variant));
  }
  agrees(Case<S>(3, 2049, 1));
  agrees(Case<S>(2, 9001, 8));
  agrees(Case<S>(1, 27, 1));
  for (int variant = 0; variant < 3; ++variant) agrees(Case<S>(0, 27, variant));
}

template <class S>
void check_extreme_logits() {
  for (const int64_t V : {1, 7, 64, 300, 3000}) {
    Case<S> problem(6, V, 0);
    const float extremes[] = {1e4f, -1e4f, -numbers::infinity, numbers::infinity, 0.0f};
    for (int64_t n = 0; n < 5; ++n) numbers::convert(extremes[n], problem.input[n * V + V / 2]);
    for (int64_t v = 0; v < V; ++v) numbers::convert(-numbers::infinity, problem.input[5 * V + v]);
    agrees(problem);
  }
}

template <class Run>
void every_type(const Run& run) {
  run(float());
  run(double());
  run(bfloat16());
  run(float16());
}

}  // namespace

TEST(cross_entropy_at_every_size) {
  every_type([](auto s) { check_all_sizes<decltype(s)>(); });
}

TEST(cross_entropy_of_extreme_logits) {
  every_type([](auto s) { check_extreme_logits<decltype(s)>(); });
}

TEST(cross_entropy_of_more_rows_than_a_launch_has_groups_for) {
  for (const int64_t V : {7, 70, 2100}) {
    for (int variant = 0; variant < 3; ++variant) {  // each reduction
      Case<float> problem(V == 7 ? 70 : 21, V, variant);
      problem.most_blocks = 2;
      agrees(problem);
    }
  }
}

TEST(cross_entropy_of_many_rows) {
  agrees(Case<float>(3000, 3, 1));
  agrees(Case<float>(300, 70, 5));
  agrees(Case<double>(2100, 1, 4));
}

TEST(cross_entropy_of_ignored_rows_only) {
  for (int variant = 0; variant < 6; ++variant) {
    Case<float> problem(40, 5, variant);
    for (int64_t& y : problem.target) y = problem.options.ignore_index;
    agrees(problem);
  }
}

TEST(cross_entropy_of_a_target_out_of_range_is_nan) {
  for (const int64_t bad : {int64_t(27), int64_t(-1), int64_t(1) << 40}) {
    Case<float> problem(40, 27, 0);  // Reduction::none
    const Results right = problem(Device());
    problem.target[4] = bad;
    const Results got = problem(Device());
    for (int64_t n = 0; n < 40; ++n) {
      const bool is_bad = n == 4;
      CHECK_EQ(std::isnan(got[0][n]), is_bad);
      CHECK_EQ(std::isnan(got[2][n * 27]), is_bad);
      if (!is_bad) CHECK_EQ(got[0][n], right[0][n]);
    }
  }
}

TEST(cross_entropy_of_few_rows_is_one_launch) {
#if !ON_DEVICE
  Case<float> problem(32, 27, 4);  // Reduction::mean
  emulation::take_launches();
  problem(Device());
  CHECK_EQ(emulation::take_launches().size(), size_t(3));  // and the backward's two
#endif
}
