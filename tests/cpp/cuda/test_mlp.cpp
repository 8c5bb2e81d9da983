// The whole model on a device, and the update of its parameters, against the CPU.
#include <optional>

#include "kernels/cuda/mlp_logits-inl.h"
#include "mlp_model.h"

namespace {

using namespace models;
using numbers::tolerance;

template <class A>
struct Logits : Model<A> {
  std::optional<bool> library;  // or what the kernels choose

  Logits(Sizes z, int variant, std::optional<bool> library = std::nullopt)
      : Model<A>(z, variant), library(library) {}

  template <class Side>
  Results operator()(const Side& side) const {
    using Array = typename Side::template Array<A>;
    const Sizes& z = this->z;
    const Array c(this->embedding), w(this->weight), b(this->bias), ow(this->output_weight),
        out(z.N * z.V);
    const Optional<Side, A> ob(this->output_bias, this->variant % 2 == 0);
    const IdArray<Side> x(this->tokens, true);
    const MlpLogits<A> p{
        {z.N, z.T, z.V, z.E, z.H, x.ids(), c.data(), w.data(), b.data()}, ow.data(), ob.data()};
    run(side, p, out.data());
    side.finish();
    return {numbers::values(out.values())};
  }

 private:
  template <class Side>
  void run(const Side& side, const MlpLogits<A>& p, A* logits) const {
    if constexpr (Side::is_device) {
      if (library) {
        using Kernel = cuda::MlpLogitsKernel<A>;
        const Scratch<Side> scratch(int64_t(cuda::measure<Kernel>(p, *library)));
        cuda::make<Kernel>(scratch.data(), p, *library).run(logits, side.executor());
        return side.finish();
      }
    }
    const auto& k = Side::template kernels<A>();
    const Scratch<Side> scratch(int64_t(k.mlp_logits_workspace(p)));
    k.mlp_logits(p, logits, scratch.data(), side.executor());
    side.finish();
  }
};

// A parameter, its gradient and its optimizer's state.
template <class Side, class A>
struct Updated {
  typename Side::template Array<A> gradient, parameter, first, second;

  Updated(std::mt19937& random, int64_t size, int64_t offset)
      : gradient(numbers::normals<A>(random, size), offset),
        parameter(numbers::normals<A>(random, size), offset),
        first(numbers::normals<A>(random, size)),
        second(squares(numbers::normals<A>(random, size)), offset) {}

  UpdatedParameter<A> pointers(bool momentum) const {
    return {gradient.data(), parameter.data(), momentum ? first.data() : nullptr, second.data()};
  }
  void append(Results& results) const {
    for (const auto* array : {&parameter, &first, &second}) {
      results.push_back(numbers::values(array->values()));
    }
  }

 private:
  static std::vector<A> squares(std::vector<A> x) {
    for (A& value : x) value *= value;
    return x;
  }
};

template <class A>
struct Update {
  Sizes z;
  OptimizerStep step;
  int64_t offset;
  bool direct = false;

  template <class Side>
  Results operator()(const Side& side) const {
    std::mt19937 random(5);
    const Updated<Side, A> a(random, z.V * z.E, offset), b(random, z.H * z.T * z.E, 0),
        c(random, z.H, offset), d(random, z.V * z.H, 0), e(random, z.V, offset),
        f(random, direct ? z.V * z.T * z.E : 0, offset);
    const bool momentum = step.adamw || step.momentum != 0;
    MlpUpdate<A> p{z.N,
                   z.T,
                   z.V,
                   z.E,
                   z.H,
                   a.pointers(momentum),
                   b.pointers(momentum),
                   c.pointers(momentum),
                   d.pointers(momentum),
                   e.pointers(momentum),
                   direct ? f.pointers(momentum) : UpdatedParameter<A>{},
                   step};
    if (z.V == 4) p.hidden_bias.parameter = nullptr;  // frozen
    Side::template kernels<A>().mlp_update(p, side.executor());
    side.finish();
    Results results;
    a.append(results);
    b.append(results);
    c.append(results);
    d.append(results);
    e.append(results);
    f.append(results);
    return results;
  }
};

template <class S>
void agrees(const LossAndGradients<S>& problem) {
  agree(10 * tolerance<S>, problem.name(), problem);
}

template <class S>
void check_model() {
  for (int64_t width = 1; width <= 33; width += 4) {
    agrees(LossAndGradients<S>({9, 3, width, 5, 34 - width}, int(width)));
  }
  LossAndGradients<S> problem({150, 2, 27, 4, 20}, 0);
  agrees(problem);
  problem.factor = true;
  agrees(problem);
  agrees(LossAndGradients<S>({0, 3, 5, 2, 4}, 0));
  agrees(LossAndGradients<S>({20, 3, 200, 3, 9}, 1));
}

template <class A>
void check_update() {
  OptimizerStep sgd;
  sgd.lr = 0.1;
  OptimizerStep momentum = sgd;
  momentum.momentum = 0.9;
  momentum.weight_decay = 0.01;
  momentum.factor = 0.25;
  OptimizerStep adamw;
  adamw.adamw = true;
  adamw.lr = 0.01;
  adamw.factor = 0.25;
  adamw.weight_decay = 0.1;
  adamw.beta1 = 0.9;
  adamw.beta2 = 0.999;
  adamw.eps = 1e-8;
  adamw.step = 3;
  for (const OptimizerStep& step : {sgd, momentum, adamw}) {
    for (const Sizes z : {Sizes{8, 3, 27, 10, 50}, Sizes{8, 1, 4, 1, 3}}) {
      for (const int64_t offset : {0, 1}) agree(tolerance<A>, "update", Update<A>{z, step, offset});
    }
    OptimizerStep spared = step;
    spared.decay_biases = false;
    agree(tolerance<A>, "biases spared", Update<A>{{8, 3, 27, 10, 50}, spared, 0});
    agree(tolerance<A>, "direct", Update<A>{{8, 2, 9, 3, 5}, spared, 1, true});
  }
}

}  // namespace

TEST(mlp_cross_entropy_in_float32) { check_model<float>(); }
TEST(mlp_cross_entropy_in_float64) { check_model<double>(); }
TEST(mlp_cross_entropy_in_bfloat16) { check_model<bfloat16>(); }
TEST(mlp_cross_entropy_in_float16) { check_model<float16>(); }

TEST(mlp_cross_entropy_multiplies_gradients_with_grad_output) {
  for (const bool factor : {false, true}) {  // at the end, or left to the caller
    LossAndGradients<float> problem({50, 2, 9, 3, 12}, 0);
    problem.factor = factor;
    problem.grad_output = -0.5f;
    agrees(problem);
  }
}

TEST(mlp_cross_entropy_ignores_targets) {
  LossAndGradients<float> problem({40, 2, 9, 3, 12}, 0);
  problem.ignore_index = problem.targets[3];
  agrees(problem);
  for (int64_t& id : problem.targets) id = problem.ignore_index;
  agrees(problem);  // the mean of nothing
  problem.factor = true;
  agrees(problem);
}

TEST(mlp_cross_entropy_of_an_id_out_of_range_is_nan) {
  for (const int64_t bad : {int64_t(9), int64_t(-1), int64_t(1) << 40}) {
    LossAndGradients<float> problem({40, 2, 9, 3, 12}, 0);
    problem.tokens[2 * 4 + 1] = bad;
    const Results got = problem(Device());
    CHECK(std::isnan(got[0][0]));  // loss
    CHECK(std::isnan(got[4][0]));  // dbias
    LossAndGradients<float> other({40, 2, 9, 3, 12}, 0);
    other.targets[39] = bad;
    CHECK(std::isnan(other(Device())[0][0]));
  }
}

TEST(mlp_cross_entropy_of_extreme_logits) {
  LossAndGradients<float> problem({40, 2, 9, 3, 12}, 0);
  problem.output_bias[4] = -numbers::infinity;  // a token that is never next
  problem.output_bias[5] = 1e4f;
  for (int64_t& id : problem.targets) id = id == 4 ? 5 : id;
  agrees(problem);
}

TEST(mlp_cross_entropy_of_embeddings_that_are_not_finite) {
  LossAndGradients<float> problem({40, 2, 9, 3, 12}, 0);
  for (int64_t& id : problem.tokens) id = id < 2 ? 2 : id;
  problem.embedding[3] = NAN;  // of a token that no example has
  agrees(problem);
  problem.tokens[7] = 1;
  CHECK(std::isnan(problem(Device())[2][0]));  // dweight
}

TEST(mlp_logits_agree) {
  for (int64_t width = 1; width <= 33; width += 8) {
    const Logits<float> problem({9, 3, width, 5, 34 - width}, int(width));
    agree(10 * tolerance<float>, problem.name(), problem);
    const Logits<double> wide({70, 2, width, 3, 20}, int(width) + 1);
    agree(10 * tolerance<double>, wide.name(), wide);
  }
  for (int variant = 0; variant < 2; ++variant) {  // with a bias and without
    const Logits<float> problem({9, 3, 133, 5, 7}, variant, true);
    agree(10 * tolerance<float>, problem.name(), problem);
  }
}

TEST(mlp_update_is_one_launch) {
  check_update<float>();
  check_update<double>();
#if !ON_DEVICE
  emulation::take_launches();
  OptimizerStep step;
  Update<float>{{8, 3, 27, 10, 50}, step, 0}(Device());
  CHECK_EQ(emulation::take_launches().size(), size_t(1));
#endif
}
