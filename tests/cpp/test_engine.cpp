// The engine's threads and its training loop, on arrays of exactly their size for the sanitizers.
#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "check.h"
#include "engine/inference.h"
#include "engine/team.h"
#include "engine/training_loop.h"
#include "kernels/philox.h"
#include "kernels/serial.h"

using pymlp::ModelSizes;
using pymlp::Phase;
using pymlp::Steps;
using pymlp::Team;
using pymlp::Trained;
using pymlp::TrainingData;
using pymlp::TrainingLoop;

namespace {

constexpr int64_t V = 7, T = 2, N = 40, B = 9, K = 6;

// With few numbers an embedding, parameters are updated while other columns' gradients are
// computed; with many, at the end of the step.
constexpr ModelSizes few{V, T, 3, 100}, many{V, T, 60, 100};

// The vocabulary divided among threads: because it is large, or because the embeddings themselves
// are needed.
constexpr ModelSizes words{1500, T, 3, 10}, direct{V, T, 3, 10, true},
    direct_alone{V, T, 3, 0, true};
constexpr ModelSizes all[] = {few, many, words, direct, direct_alone};

struct Run {
  ModelSizes sizes;
  pymlp::Optimizer optimizer;
  pymlp::Objective objective;
  int64_t noise = 0;  // words of it, if the softmax is sampled
  std::vector<int64_t> tokens, targets, indices;
  std::vector<std::vector<float>> parameters, first, second;
  std::vector<double> rates, losses, grad_norms;
  int64_t done = 0;

  explicit Run(const ModelSizes& sizes = few)
      : sizes(sizes), tokens(N * T), targets(N), indices(K * B), rates(K, 0.5), losses(K) {
    uint32_t state = 1;
    const auto next = [&state] { return (state = state * 1664525u + 1013904223u) >> 16; };
    for (int64_t& id : tokens) id = next() % sizes.V;
    for (int64_t& id : targets) id = next() % sizes.V;
    for (int64_t& index : indices) index = next() % N;
    for (int64_t size : sizes.parameter_sizes()) {
      std::vector<float> values(size);
      for (float& x : values) x = float(next() % 1000) / 1000 - 0.5f;
      parameters.push_back(values);
    }
  }

  void keep_momentum() {
    optimizer.rule.momentum = 0.9;
    for (const auto& values : parameters) first.emplace_back(values.size());
  }
  void use_adamw() {
    optimizer.rule.adamw = true;
    optimizer.rule.beta1 = 0.9;
    optimizer.rule.beta2 = 0.99;
    optimizer.rule.eps = 1e-6;
    optimizer.rule.weight_decay = 0.1;
    optimizer.rule.decay_biases = false;
    for (const auto& values : parameters) first.emplace_back(values.size());
    second = first;
  }

  std::optional<pymlp::Candidates> candidates() const {
    if (noise == 0) return std::nullopt;
    std::vector<int64_t> counts(size_t(sizes.V));
    for (const int64_t id : targets) ++counts[size_t(id)];
    return pymlp::Candidates(counts.data(), sizes.V, noise, B, 1);
  }

  void train(const pymlp::Parallel& parallel, int64_t count = K) {
    const TrainingData data{N, tokens.data(), targets.data()};
    TrainingLoop<float> loop(sizes, optimizer, objective, data, B, candidates());
    Trained<float> trained[pymlp::most_parameters];
    for (size_t i = 0; i < parameters.size(); ++i) {
      trained[i].parameter = parameters[i].data();
      if (!first.empty()) trained[i].first = first[i].data();
      if (!second.empty()) trained[i].second = second[i].data();
    }
    Steps steps;
    steps.count = count;
    steps.batch_size = B;
    steps.indices = indices.data();
    steps.rates = rates.data();
    steps.losses = losses.data();
    if (!grad_norms.empty()) steps.grad_norms = grad_norms.data();
    loop.run(trained, steps, parallel, done);
  }
};

// Abandons the kernel at the phase of a given number, counting those that may stop.
class Abandoning final : public pymlp::Parallel {
 public:
  explicit Abandoning(int phases) : left_(phases) {}

  void run(const Phase& phase, pymlp::RangeBody body) const override {
    if (phase.stop != pymlp::Stop::never && left_-- == 0) throw std::runtime_error("abandoned");
    if (phase.total > 0) body(0, phase.total);
  }

 private:
  mutable int left_;
};

std::string message_of(Run& run) {
  try {
    run.train(pymlp::Serial());
  } catch (const std::out_of_range& error) {
    return error.what();
  }
  return "no error";
}

// Abandons a run at every phase there is.
void check_abandoned(const Run& before) {
  int64_t done = 0;
  for (int phases = 0; done < K; ++phases) {
    Run run = before, expected = before;
    bool abandoned = false;
    try {
      run.train(Abandoning(phases));
    } catch (const std::runtime_error&) {
      abandoned = true;
    }
    CHECK_EQ(abandoned, run.done < K);
    CHECK(run.done == done || run.done == done + 1);
    done = run.done;
    expected.train(pymlp::Serial(), done);
    CHECK(run.parameters == expected.parameters);
    CHECK(run.first == expected.first);
  }
}

}  // namespace

TEST(team_runs_every_item_once) {
  for (int threads : {1, 2, 3, 5}) {
    const Team team(threads);
    for (int64_t total : {0, 1, 2, 3, 7, 1000}) {
      for (int repeat = 0; repeat < 200; ++repeat) {
        std::vector<int> runs(total, 0);
        team.run({"count", total, 1 << 20}, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++runs[i];
        });
        CHECK_EQ(std::accumulate(runs.begin(), runs.end(), int64_t(0)), total);
        for (int count : runs) CHECK_EQ(count, 1);
      }
    }
  }
}

TEST(team_wakes_threads_that_sleep_and_waits_for_them) {
  using std::chrono::milliseconds;
  const Team team(2);
  const auto caller = std::this_thread::get_id();
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::this_thread::sleep_for(milliseconds(20));
    std::atomic<bool> begun{false}, ended{false};
    team.run({"slow", 2, 1 << 20}, [&](int64_t, int64_t) {
      if (std::this_thread::get_id() == caller) {  // leaves the other range to the other thread
        for (int i = 0; i < 10000 && !begun; ++i) std::this_thread::sleep_for(milliseconds(1));
      } else {
        begun = true;
        std::this_thread::sleep_for(milliseconds(20));
        ended = true;
      }
    });
    CHECK(begun);
    CHECK(ended);
  }
}

TEST(team_lets_before_phase_abandon_the_kernel) {
  int calls = 0;
  const Team team(2, [&] {
    if (++calls == 3) throw std::runtime_error("enough");
  });
  int phases = 0;
  bool thrown = false;
  try {
    for (; phases < 100; ++phases) team.run({"work", 1, int64_t(1) << 24}, [](int64_t, int64_t) {});
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  CHECK(thrown);
  CHECK_EQ(phases, 2);
}

TEST(training_gives_the_same_bits_on_any_number_of_threads) {
  for (const ModelSizes& sizes : all) {
    Run serial(sizes);
    if (sizes.direct) serial.objective.dropout = 0.3;
    for (int64_t noise : {0, 5}) {
      serial.noise = noise;
      const Run before = serial;
      Run alone = before;
      alone.train(pymlp::Serial());
      CHECK_EQ(alone.done, K);
      CHECK(alone.parameters != before.parameters);
      for (int threads : {2, 4}) {
        Run again = before;
        again.train(Team(threads));
        CHECK(again.losses == alone.losses);
        CHECK(again.parameters == alone.parameters);
      }
    }
  }
}

TEST(team_works_without_subnormal_numbers_and_its_caller_with_them) {
  const volatile float smallest = std::numeric_limits<float>::min();
  bool kept = true;
  const auto keeps_subnormals = [&] { return smallest * 0.5f > 0; };
  for (int threads : {1, 3}) {
    const Team team(threads, [&] { kept &= keeps_subnormals(); });
    std::vector<float> halves(1000, 1);
    for (int repeat = 0; repeat < 20; ++repeat) {
      team.run({"halve", 1000, 1 << 20}, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) halves[i] = smallest * 0.5f;
      });
      CHECK(halves == std::vector<float>(1000, 0));
      CHECK(kept && keeps_subnormals());
    }
  }
}

TEST(moments_that_decay_become_zero_with_any_number_of_threads) {
  Run run(words);
  run.use_adamw();
  for (float& moment : run.first[0]) moment = 1.2e-38f;
  Run other = run;
  run.train(Team(1));
  other.train(Team(3));
  CHECK(run.parameters == other.parameters && run.first == other.first);
  int64_t zeros = 0;
  for (const float moment : run.first[0]) {
    zeros += moment == 0;
    CHECK(moment == 0 || std::fabs(moment) >= std::numeric_limits<float>::min());
  }
  CHECK(zeros > 0);  // of words that do not occur
}

TEST(a_step_that_is_abandoned_changes_nothing) {
  for (const ModelSizes& sizes : all) {
    for (bool sparse : {false, true}) {
      for (int64_t noise : {0, 5}) {
        Run run(sizes);
        run.optimizer.sparse_embedding = sparse;
        if (sparse) run.keep_momentum();
        run.noise = noise;
        check_abandoned(run);
        run.grad_norms.resize(K);
        check_abandoned(run);
      }
    }
  }
}

TEST(rows_that_do_not_occur_stay_as_they_are) {
  for (ModelSizes sizes : all) {
    Run run(sizes);
    run.optimizer.sparse_embedding = true;
    run.use_adamw();
    const int64_t seen = sizes.V / 2;
    for (int64_t& id : run.tokens) id %= seen;
    for (auto* state : {&run.first[0], &run.second[0]}) *state = run.parameters[0];
    for (float& x : run.second[0]) x *= x;
    const Run before = run;
    for (bool norms : {false, true}) {
      Run serial = before, threads = before;
      serial.grad_norms.resize(norms ? K : 0);
      threads.grad_norms = serial.grad_norms;
      serial.train(pymlp::Serial());
      threads.train(Team(3));
      for (auto member : {&Run::parameters, &Run::first, &Run::second}) {
        CHECK((serial.*member) == (threads.*member));
        const auto &found = (serial.*member)[0], &old = (before.*member)[0];
        const int64_t unseen = seen * sizes.E;
        CHECK(std::equal(found.begin() + unseen, found.end(), old.begin() + unseen));
        CHECK(!std::equal(found.begin(), found.begin() + unseen, old.begin()));
      }
    }
  }
}

TEST(training_gives_the_same_bits_with_the_update_after_all_gradients) {
  for (const ModelSizes& sizes : all) {
    Run plain(sizes), momentum(sizes), adamw(sizes);
    momentum.keep_momentum();
    adamw.use_adamw();
    Run sparse = adamw;
    sparse.optimizer.sparse_embedding = true;
    for (Run* optimized : {&plain, &momentum, &adamw, &sparse}) {
      Run run = *optimized, with_norms = *optimized;
      with_norms.grad_norms.resize(K);
      run.train(pymlp::Serial());
      with_norms.train(pymlp::Serial());
      CHECK(run.losses == with_norms.losses);
      CHECK(run.parameters == with_norms.parameters);
      CHECK(run.second == with_norms.second);
      for (double norm : with_norms.grad_norms) CHECK(norm > 0);
    }
  }
}

TEST(long_phases_may_be_abandoned_between_their_items) {
  int calls = 0;
  const Team team(2, [&] {
    if (++calls == 4) throw std::runtime_error("enough");
  });
  std::atomic<int> items{0};
  for (pymlp::Stop stop : {pymlp::Stop::before, pymlp::Stop::never, pymlp::Stop::anywhere}) {
    bool abandoned = false;
    items = 0;
    try {
      team.run({"long", 16, int64_t(1) << 30, stop},
               [&](int64_t begin, int64_t end) { items += static_cast<int>(end - begin); });
    } catch (const std::runtime_error&) {
      abandoned = true;
    }
    CHECK_EQ(abandoned, stop == pymlp::Stop::anywhere);
    CHECK_EQ(items.load(), abandoned ? 4 : 16);
  }
}

TEST(training_reads_nothing_for_ids_out_of_range) {
  for (int64_t id : {int64_t(-1), V, int64_t(1) << 62}) {
    Run token, target, index;
    token.tokens[token.indices[2 * B] * T + 1] = id;
    target.targets[target.indices[2 * B]] = id;
    index.indices[2 * B + 1] = id == V ? N : id;
    CHECK(message_of(token).find("tokens of example") != std::string::npos);
    CHECK(message_of(target).find("the target of example") != std::string::npos);
    CHECK(message_of(index).find("the index of an example") != std::string::npos);
    CHECK_EQ(token.done, 2);
    CHECK_EQ(index.done, 0);
  }
}

// The known answers that come with Random123.
TEST(philox_gives_the_published_numbers) {
  using Words = std::array<uint32_t, 4>;
  constexpr uint32_t ones = 0xffffffff;
  CHECK(pymlp::philox({0, 0, 0, 0}, {0, 0}) ==
        (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  CHECK(pymlp::philox({ones, ones, ones, ones}, {ones, ones}) ==
        (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(inference_reads_nothing_for_ids_out_of_range) {
  Run run;
  pymlp::Model<float> model{run.sizes, {}};
  for (size_t i = 0; i < run.parameters.size(); ++i) model.parameters[i] = run.parameters[i].data();
  std::vector<float> losses(N);
  pymlp::token_losses(model, N, run.tokens.data(), run.targets.data(), losses.data(), Team(2));
  for (float loss : losses) CHECK(loss > 0);
  int refused = 0;
  for (std::vector<int64_t>* ids : {&run.tokens, &run.targets}) {
    const int64_t before = std::exchange(ids->back(), V);
    try {
      pymlp::token_losses(model, N, run.tokens.data(), run.targets.data(), losses.data(), Team(2));
    } catch (const std::out_of_range&) {
      ++refused;
    }
    ids->back() = before;
  }
  CHECK_EQ(refused, 2);
}

TEST(samples_do_not_depend_on_threads_or_number) {
  Run run;
  pymlp::Model<float> model{run.sizes, {}};
  for (size_t i = 0; i < run.parameters.size(); ++i) model.parameters[i] = run.parameters[i].data();
  pymlp::SampleOptions options;
  options.count = 5000;
  options.prefix = {3, 1, 2};
  options.max_length = 9;
  options.top_k = 3;
  options.seed = 7;
  const auto many = pymlp::sample(model, options, Team(3));
  options.count = 10;
  const auto few = pymlp::sample(model, options, pymlp::Serial());
  CHECK(std::equal(few.begin(), few.end(), many.begin()));
  CHECK(few[0] != few[1] || few[1] != few[2]);
  for (const auto& sequence : many) CHECK(sequence.size() >= 3 && sequence.size() <= 9);
}
