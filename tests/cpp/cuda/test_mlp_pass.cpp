// The loss and the gradients of the model in one pass over the examples, against the CPU.
#include <algorithm>

#include "mlp_model.h"

namespace {

using namespace models;

constexpr double tolerance = 10 * numbers::tolerance<float>;  // as of the layers

#if !ON_DEVICE
std::vector<std::string> launches_of(const LossAndGradients<float>& problem) {
  emulation::take_launches();
  problem(Device());
  return emulation::take_launches();
}

bool goes_by(const LossAndGradients<float>& problem, const std::string& kernel) {
  const std::vector<std::string> launches = launches_of(problem);
  return std::any_of(launches.begin(), launches.end(), [&](const std::string& name) {
    return name.find(kernel) != std::string::npos;
  });
}
#endif

void agrees(const LossAndGradients<float>& problem) {
#if !ON_DEVICE
  CHECK(goes_by(problem, "MlpPassKernel"));
#endif
  agree(tolerance, problem.name(), problem);
}

}  // namespace

TEST(mlp_pass_agrees) {
  for (const Sizes z : {Sizes{32, 3, 27, 10, 40},
                        {33, 3, 27, 10, 200},  // the lecture's; an example in the second block
                        {1, 1, 1, 1, 1},
                        {31, 5, 16, 3, 7},  // a vocabulary of whole tiles; more than four positions
                        {40, 2, 17, 4, 23},
                        {20, 1, 64, 2, 9},
                        {70, 1, 3, 6, 130}}) {
    for (int variant = 0; variant < 5; ++variant) agrees({z, variant});
  }
}

TEST(mlp_pass_is_four_launches) {
#if !ON_DEVICE
  const std::vector<std::string> launches = launches_of({{64, 3, 27, 10, 50}, 0});
  CHECK_EQ(launches.size(), size_t(4));
#endif
}

TEST(mlp_pass_of_more_examples_than_blocks_take_at_once) {
  agrees({{32 * 132 + 5, 1, 4, 2, 3}, 0});
  for (const int64_t H : {7, 8}) {
    LossAndGradients<float> problem({32 * 7 + 5, 2, 5, 3, H}, 1);
    problem.blocks = 2;
    agrees(problem);
  }
}

TEST(mlp_pass_has_at_most_1024_examples_a_block) {
  CHECK_EQ(cuda::MlpPass::blocks_for(1), 1);
  CHECK_EQ(cuda::MlpPass::blocks_for(33), 2);
  CHECK_EQ(cuda::MlpPass::blocks_for(132 * 1024), 132);
  CHECK_EQ(cuda::MlpPass::blocks_for(132 * 1024 + 1), 264);
}

TEST(mlp_pass_leaves_the_common_factor_out) {
  LossAndGradients<float> sum({50, 2, 9, 3, 12}, 1);
  sum.factor = true;
  agrees(sum);
  LossAndGradients<float> problem({50, 2, 9, 3, 12}, 0);
  problem.factor = true;
  problem.grad_output = -0.5f;
  agrees(problem);
  problem.factor = false;
  agrees(problem);
}

TEST(mlp_pass_ignores_targets) {
  LossAndGradients<float> problem({40, 2, 9, 3, 12}, 0);
  problem.ignore_index = problem.targets[3];
  agrees(problem);
  std::fill(problem.targets.begin(), problem.targets.end(), problem.ignore_index);
  agrees(problem);  // the mean of nothing
  problem.factor = true;
  agrees(problem);
}

TEST(mlp_pass_of_an_id_out_of_range_is_nan) {
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

TEST(mlp_pass_of_extreme_logits) {
  LossAndGradients<float> problem({40, 2, 9, 3, 12}, 0);
  problem.output_bias[4] = -numbers::infinity;  // a token that is never next
  problem.output_bias[5] = 1e4f;
  for (int64_t& id : problem.targets) id = id == 4 ? 5 : id;
  agrees(problem);
}

TEST(mlp_pass_of_embeddings_that_are_not_finite) {
  LossAndGradients<float> problem({40, 2, 9, 3, 12}, 0);
  for (int64_t& id : problem.tokens) id = id < 2 ? 2 : id;
  problem.embedding[3] = NAN;  // of a token that no example has
  agrees(problem);
  problem.tokens[7] = 1;
  CHECK(std::isnan(problem(Device())[2][0]));  // dweight
}

TEST(mlp_pass_in_less_shared_memory_has_the_same_bits) {
#if !ON_DEVICE
  const LossAndGradients<float> problem({40, 3, 27, 10, 200}, 0);
  const Results got = problem(Device());
  for (const int64_t kib : {163, 99}) {  // of an A100, and of smaller devices
    emulation::set_most_shared_bytes(kib * 1024);
    CHECK_EQ(goes_by(problem, "MlpPassKernel<false>"), kib == 163);
    if (kib == 163) CHECK(sides::same_bits(problem(Device()), got));
  }
  emulation::set_most_shared_bytes(227 * 1024);
  CHECK(goes_by(problem, "MlpPassKernel<true>"));
#endif
}

TEST(mlp_pass_leaves_large_models_to_the_layers) {
  const LossAndGradients<float> problem({40, 3, 400, 3, 64}, 0);
#if !ON_DEVICE
  CHECK(!goes_by(problem, "MlpPassKernel"));
#endif
  agree(tolerance, problem.name(), problem);
}
