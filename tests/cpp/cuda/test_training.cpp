// Training on a device against the engine of the CPU: whole runs, and how they are divided.
#include "training_runs.h"

using namespace runs;

namespace {

constexpr TrainingSizes small{7, 2, 3, 10, 9};

}  // namespace

TEST(a_few_hundred_steps_follow_the_cpu) {
  follows_the_cpu<float>({small, 300, sgd()}, 1e-4);
  follows_the_cpu<double>({small, 200, sgd()}, 1e-11);
}

TEST(training_of_all_sizes) {
  for (const TrainingSizes z : {TrainingSizes{1, 1, 1, 1, 1},
                                {2, 1, 1, 3, 5},
                                {27, 3, 4, 20, 32},
                                {33, 1, 2, 4, 8},
                                {5, 4, 8, 31, 3},
                                {70, 2, 1, 9, 17},
                                {4, 9, 4, 3, 40},
                                {300, 2, 3, 5, 6}}) {
    follows_the_cpu<float>({z, 4, momentum()}, 2e-5);
    follows_the_cpu<double>({z, 3, sgd(0.1)}, 1e-12);
  }
}

TEST(training_by_every_rule) {
  for (const Optimizer& rule : {sgd(0.1), momentum(), adamw()}) {
    Problem p{small, 40, rule};
    p.rate = rule.rule.adamw ? 0.01 : 0.1;
    follows_the_cpu<float>(p, 5e-5);
    p.done_before = 1000;
    p.norms = true;
    follows_the_cpu<float>(p, 5e-5);
    p.norms = false;
    for (const double norm : {0.5, 100.0}) {
      p.optimizer = clipped(rule, norm);
      follows_the_cpu<float>(p, 5e-5);
    }
  }
}

TEST(training_leaves_frozen_parameters_alone) {
  for (int frozen = 0; frozen < trained_arrays; ++frozen) {
    Problem p{small, 10, adamw(), true};
    p.rate = 0.01;
    p.frozen[frozen] = true;
    follows_the_cpu<float>(p, 2e-5);
    p.norms = false;
    follows_the_cpu<float>(p, 2e-5);
    const Start<float> start(p);
    const Results found = trained<float>(p, p.steps);
    CHECK(sides::same_bits({found[size_t(2 + 3 * frozen)]},
                           {numbers::values(start.parameters[frozen])}));
  }
}

// Where state and gradients lie does not change a bit.
TEST(training_with_less_shared_memory) {
  Problem p{small, 12, clipped(adamw(), 0.5), true};
  const int64_t least = cuda_training<float>().least_shared_bytes(p.z);
  const Results got = trained<float>(p, p.steps);
  int outside = 0;
  for (const int64_t more : {0, 1500, 3000}) {
    CHECK(sides::same_bits(trained<float>(p, p.steps, least + more), got));
    OnDevice<float> model(p, least + more);
    int64_t bytes = 0;
    model.steps(0, 1, bytes);
    CHECK(bytes <= least + more);
    outside += model.all_in_shared() ? 0 : 1;
  }
  CHECK(outside >= 2);
}

TEST(models_side_by_side) {
  std::vector<Problem> problems{{small, 20, sgd()},
                                {{27, 3, 2, 16, 8}, 7, adamw()},
                                {{5, 1, 1, 3, 40}, 20, clipped(momentum(), 0.1), true},
                                {small, 20, momentum()}};
  std::vector<std::unique_ptr<OnDevice<float>>> models;
  for (const Problem& p : problems)
    models.emplace_back(new OnDevice<float>(p, most_shared_bytes()));
  std::vector<TrainingModel<float>> first, second;
  int64_t bytes = 0;
  for (size_t i = 0; i < models.size(); ++i) {
    const int64_t half = int64_t(i) + 3, all = problems[i].steps;
    first.push_back(models[i]->steps(0, half, bytes));
    second.push_back(models[i]->steps(half, all, bytes));
  }
  TrainingModel<float> nothing{};
  second.push_back(nothing);
  launch(first, bytes);
  launch(second, bytes);
  for (size_t i = 0; i < models.size(); ++i) {
    CHECK(sides::same_bits(models[i]->results(), trained<float>(problems[i], problems[i].steps)));
  }
}

TEST(training_that_diverges_ends_in_nan) {
  Problem p{small, 30, sgd()};
  p.rate = 1e38;
  const Results got = trained<float>(p, p.steps);
  CHECK(std::isfinite(got[0].front()));
  CHECK(std::isnan(got[0].back()));
  for (const int frozen : {0, 1, 2, 3}) {
    for (const double x : got[size_t(2 + 3 * frozen)]) CHECK(!std::isfinite(x) || std::fabs(x) < 4);
  }
}

TEST(training_on_ids_out_of_range_gives_nan) {
  for (const int bad : {-1, 7, 1 << 30}) {
    Problem p{small, 5, sgd()};
    p.bad_token = bad;
    const Results got = trained<float>(p, p.steps);
    const Start<float> start(p);
    const auto has = [&](int64_t k) {
      const auto begin = start.indices.begin() + k * p.z.B;
      return std::find(begin, begin + p.z.B, 1) != begin + p.z.B;
    };
    int64_t k = 0;
    for (; k < p.steps && !has(k); ++k) CHECK(std::isfinite(got[0][size_t(k)]));
    CHECK(k < p.steps);
    for (; k < p.steps; ++k) CHECK(std::isnan(got[0][size_t(k)]));
  }
}

TEST(training_on_indices_out_of_range_gives_nan) {
  for (const int64_t bad : {int64_t(-1), examples, int64_t(1) << 30}) {
    Problem p{small, 4, sgd()};
    p.bad_index = bad;
    const Results got = trained<float>(p, p.steps);
    for (size_t k = 0; k < 4; ++k) CHECK_EQ(std::isnan(got[0][k]), k >= 2);
  }
}

TEST(sizes_that_no_device_has_room_for) {
  const Training<float>& training = cuda_training<float>();
  const int64_t most = 227 * 1024;
  CHECK(training.least_shared_bytes({27, 3, 10, 200, 32}) <= most / 2);  // two blocks
  CHECK(training.least_shared_bytes({27, 3, 10, 200, 4096}) > most);
  constexpr int32_t huge = 0x7fffffff;
  for (const TrainingSizes z : {TrainingSizes{huge, 3, 10, 200, 32},
                                {27, huge, huge, 200, 32},
                                {27, 3, 10, huge, 32},
                                {27, 3, 10, 200, huge},
                                {70000, 3, 70000, 70000, 1}}) {
    CHECK(training.least_shared_bytes(z) > most);
  }
}

// What a captured step reads on the device has the bits of what mlp_update is told.
TEST(an_update_by_numbers_on_the_device) {
  constexpr int64_t V = 7, T = 2, E = 3, H = 5, done = 5, number = 1;
  const std::vector<double> lr{0.3, 0.02, 0.1};
  for (const Optimizer& optimizer : {sgd(0.1), momentum(), adamw()}) {
    std::vector<Results> results;
    for (const bool on_device : {false, true}) {
      std::mt19937 random(3);
      const auto sizes = ModelSizes{V, T, E, H}.parameter_sizes();
      std::vector<std::unique_ptr<device::Array<float>>> arrays;
      const auto array = [&](int i) {
        std::vector<float> values = numbers::normals<float>(random, sizes[size_t(i)]);
        for (float& x : values) x = std::fabs(x);
        arrays.emplace_back(new device::Array<float>(values));
        return arrays.back()->data();
      };
      MlpUpdate<float> p{};
      p.V = V, p.T = T, p.E = E, p.H = H;
      p.step = optimizer.rule;
      UpdatedParameter<float>* const all[] = {&p.embedding, &p.hidden_weight, &p.hidden_bias,
                                              &p.output_weight, &p.output_bias};
      for (int i = 0; i < trained_arrays; ++i) {
        const bool keeps = optimizer.rule.adamw || optimizer.rule.momentum != 0;
        *all[i] = {array(i), array(i), keeps ? array(i) : nullptr, array(i)};
      }
      p.hidden_bias.parameter = nullptr;  // frozen
      const device::TestQueue queue;
      const device::Array<double> rates(lr);
      const device::Array<StepRates<float>> table(3);
      const device::Array<int64_t> before(std::vector<int64_t>{done}),
          count(std::vector<int64_t>{number});
      const device::Array<float> factor(std::vector<float>{0.25f}), loss(std::vector<float>{3.5f});
      const device::Array<double> losses(3);
      if (on_device) {
        const Training<float>& training = cuda_training<float>();
        training.rates(3, rates.data(), before.data(), p.step, table.data(), queue);
        training.update(
            p, {3, count.data(), table.data(), factor.data(), loss.data(), losses.data()}, queue);
      } else {
        p.step.lr = lr[number];
        p.step.step = done + number + 1;
        p.step.factor = 0.25;
        cuda_kernels().of<float>().mlp_update(p, queue);
      }
      queue.finish();
      CHECK_EQ(count.values()[0], on_device ? number + 1 : number);
      if (on_device) CHECK_EQ(losses.values()[number], 3.5);
      results.emplace_back();
      for (const auto& values : arrays) {
        results.back().push_back(numbers::values(values->values()));
      }
    }
    CHECK(sides::same_bits(results[0], results[1]));
  }
}

// Beyond the table of rates there are none, and the loss has no place.
TEST(steps_that_there_is_no_room_for_end_in_nan) {
  for (const int64_t number : {int64_t(2), int64_t(-1), int64_t(1) << 60}) {
    const device::Array<float> parameter(std::vector<float>{1, 2}),
        gradient(std::vector<float>{0, 0});
    const device::Array<StepRates<float>> rates(std::vector<StepRates<float>>(2));
    const device::Array<int64_t> count(std::vector<int64_t>{number});
    const device::Array<float> loss(std::vector<float>{3.5f});
    const device::Array<double> losses(std::vector<double>{7, 8});
    MlpUpdate<float> p{};
    p.V = 2, p.E = 1;
    p.embedding = {gradient.data(), parameter.data(), nullptr, nullptr};
    const device::TestQueue queue;
    cuda_training<float>().update(
        p, {2, count.data(), rates.data(), nullptr, loss.data(), losses.data()}, queue);
    queue.finish();
    for (const float x : parameter.values()) CHECK(std::isnan(x));
    CHECK((losses.values() == std::vector<double>{7, 8}));
    CHECK_EQ(count.values()[0], number + 1);
  }
}

namespace {

// Of step `number`, of two.
std::pair<std::vector<int32_t>, std::vector<int64_t>> batch_of_step(int64_t number) {
  constexpr int64_t steps = 2, N = 4, T = 2, B = 3;
  const device::Array<int32_t> tokens(std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7});
  const device::Array<int64_t> targets(std::vector<int64_t>{10, 11, 12, 13});
  const device::Array<int32_t> indices(std::vector<int32_t>{0, 0, 0, 3, 1, 4});
  const device::Array<int64_t> count(std::vector<int64_t>{number}), targets_out(B);
  const device::Array<int32_t> tokens_out(B * T);
  const device::TestQueue queue;
  cuda_training<float>().batch({steps,
                                N,
                                T,
                                B,
                                {tokens.data(), false},
                                {targets.data(), true},
                                indices.data(),
                                count.data(),
                                tokens_out.data(),
                                targets_out.data()},
                               queue);
  queue.finish();
  return {tokens_out.values(), targets_out.values()};
}

}  // namespace

TEST(batches_of_steps_by_numbers_on_the_device) {
  const auto [tokens, targets] = batch_of_step(1);
  CHECK((tokens == std::vector<int32_t>{6, 7, 2, 3, -1, -1}));
  CHECK((targets == std::vector<int64_t>{13, 11, -1}));
}

TEST(steps_that_there_is_no_room_for_are_no_examples) {
  for (const int64_t number : {int64_t(2), int64_t(-1), int64_t(1) << 60}) {
    const auto [tokens, targets] = batch_of_step(number);
    CHECK(tokens == std::vector<int32_t>(6, -1));
    CHECK(targets == std::vector<int64_t>(3, -1));
  }
}
