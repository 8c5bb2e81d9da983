// Training on a device against the engine of the CPU: whole runs, and how they are divided.
#include <functional>
#include <memory>
#include <sstream>

#include "engine/training_loop.h"
#include "kernels/cuda/training.h"
#include "sides.h"

namespace {

using namespace pymlp;
using sides::Results;

struct Problem {
  TrainingSizes z;  // V, T, E, H, B
  int64_t steps;
  Optimizer optimizer;
  bool norms = false;
  bool frozen[trained_arrays] = {};
  double rate = 0.1;
  int64_t done_before = 0;
  int bad_token = 0;      // if not 0, the second example's token
  int64_t bad_index = 0;  // if not 0, that of an example of the third step

  int states() const { return optimizer.rule.adamw ? 2 : optimizer.rule.momentum != 0 ? 1 : 0; }
  std::string name() const {
    std::ostringstream text;
    text << "V=" << z.V << " T=" << z.T << " E=" << z.E << " H=" << z.H << " B=" << z.B
         << " states=" << states() << " clip=" << optimizer.max_grad_norm;
    return text.str();
  }
};

constexpr int64_t examples = 50;

// The same start for both sides.
template <class A>
struct Start {
  std::vector<A> parameters[trained_arrays], first[trained_arrays], second[trained_arrays];
  std::vector<int64_t> tokens, targets, indices;
  std::vector<double> rates;

  explicit Start(const Problem& p) {
    std::mt19937 random(unsigned(p.z.V + 100 * p.z.H + p.z.B));
    const auto sizes = ModelSizes{p.z.V, p.z.T, p.z.E, p.z.H}.parameter_sizes();
    for (int i = 0; i < trained_arrays; ++i) {
      parameters[i] = numbers::normals<A>(random, sizes[i], i == 1 || i == 3 ? 0.3f : 1.0f);
      first[i] = numbers::normals<A>(random, p.states() > 0 ? sizes[i] : 0, 0.01f);
      second[i] = numbers::normals<A>(random, p.states() > 1 ? sizes[i] : 0, 0.1f);
      for (A& x : second[i]) x *= x;
    }
    tokens = numbers::ids(random, examples * p.z.T, p.z.V);
    targets = numbers::ids(random, examples, p.z.V);
    indices = numbers::ids(random, p.steps * p.z.B, examples);
    for (int64_t k = 0; k < p.steps; ++k) rates.push_back(p.rate / (1 + 0.01 * double(k)));
    if (p.bad_index != 0) indices[size_t(2 * p.z.B + 1)] = p.bad_index;
    if (p.bad_token != 0) tokens[size_t(p.z.T)] = p.bad_token;
  }
};

template <class A>
Results on_cpu(const Problem& p) {
  Start<A> start(p);
  TrainingData data;
  data.N = examples;
  data.tokens = start.tokens.data();
  data.targets = start.targets.data();
  TrainingLoop<A> loop({p.z.V, p.z.T, p.z.E, p.z.H}, p.optimizer, {}, data, p.z.B);
  Trained<A> trained[trained_arrays];
  for (int i = 0; i < trained_arrays; ++i) {
    trained[i] = {start.parameters[i].data(), p.frozen[i],
                  p.states() > 0 ? start.first[i].data() : nullptr,
                  p.states() > 1 ? start.second[i].data() : nullptr};
  }
  std::vector<double> losses(size_t(p.steps)), norms(p.norms ? size_t(p.steps) : 0);
  Steps steps;
  steps.count = p.steps;
  steps.batch_size = p.z.B;
  steps.indices = start.indices.data();
  steps.rates = start.rates.data();
  steps.done_before = p.done_before;
  steps.losses = losses.data();
  steps.grad_norms = p.norms ? norms.data() : nullptr;
  int64_t done = 0;
  loop.run(trained, steps, Serial(), done);
  Results results{losses, norms};
  for (int i = 0; i < trained_arrays; ++i) {
    results.push_back(numbers::values(start.parameters[i]));
    results.push_back(numbers::values(start.first[i]));
    results.push_back(numbers::values(start.second[i]));
  }
  return results;
}

// A model on the device.
template <class A>
class OnDevice {
 public:
  OnDevice(const Problem& p, int64_t most_bytes) : p_(p), most_bytes_(most_bytes) {
    const Start<A> start(p);
    for (int i = 0; i < trained_arrays; ++i) {
      parameters_.emplace_back(new device::Array<A>(start.parameters[i]));
      first_.emplace_back(new device::Array<A>(start.first[i]));
      second_.emplace_back(new device::Array<A>(start.second[i]));
    }
    tokens_.reset(new device::Array<int64_t>(start.tokens));
    targets_.reset(new device::Array<int64_t>(start.targets));
    const std::vector<int32_t> narrow(start.indices.begin(), start.indices.end());
    indices_.reset(new device::Array<int32_t>(narrow));
    rates_.reset(new device::Array<double>(start.rates));
    losses_.reset(new device::Array<double>(p.steps));
    norms_.reset(new device::Array<double>(p.norms ? p.steps : 0));
    done_.reset(new device::Array<int64_t>(std::vector<int64_t>{p.done_before}));
  }

  // Steps [from, to) as `train` wants them; counts the shared memory that they need.
  TrainingModel<A> steps(int64_t from, int64_t to, int64_t& bytes) {
    TrainingModel<A> m{};
    m.sizes = p_.z;
    for (int i = 0; i < trained_arrays; ++i) {
      m.parameters[i] = parameters_[i]->data();
      m.first[i] = p_.states() > 0 ? first_[i]->data() : nullptr;
      m.second[i] = p_.states() > 1 ? second_[i]->data() : nullptr;
      m.trained[i] = !p_.frozen[i];
    }
    m.rule = p_.optimizer.rule;
    m.max_grad_norm = p_.optimizer.max_grad_norm;
    m.N = examples;
    m.tokens = {tokens_->data(), true};
    m.targets = {targets_->data(), true};
    m.indices = {indices_->data() + from * p_.z.B, false};
    m.steps = to - from;
    m.done = m.done_after = done_->data();
    m.rates = rates_->data() + from;
    m.losses = losses_->data() + from;
    m.grad_norms = p_.norms ? norms_->data() + from : nullptr;
    const Training<A>& training = cuda_training<A>();
    workspaces_.emplace_back(new device::Array<char>(int64_t(training.workspace(m, most_bytes_))));
    bytes = std::max(bytes, training.place(m, most_bytes_, workspaces_.back()->data()));
    in_shared_ = m.state_in_shared && m.gradient_in_shared;
    return m;
  }

  Results results() const {
    Results results{losses_->values(), norms_->values()};
    for (int i = 0; i < trained_arrays; ++i) {
      results.push_back(numbers::values(parameters_[i]->values()));
      results.push_back(numbers::values(first_[i]->values()));
      results.push_back(numbers::values(second_[i]->values()));
    }
    CHECK_EQ(done_->values()[0], p_.done_before + p_.steps);
    return results;
  }
  bool all_in_shared() const { return in_shared_; }

 private:
  template <class T>
  using Owned = std::unique_ptr<device::Array<T>>;
  Problem p_;
  int64_t most_bytes_;
  bool in_shared_ = false;
  std::vector<Owned<A>> parameters_, first_, second_;
  Owned<int64_t> tokens_, targets_, done_;
  Owned<int32_t> indices_;
  Owned<double> rates_, losses_, norms_;
  std::vector<Owned<char>> workspaces_;
};

template <class A>
void launch(std::vector<TrainingModel<A>> models, int64_t bytes) {
  const device::TestQueue queue;
  std::vector<char> copy(models.size() * sizeof(models[0]));
  std::memcpy(copy.data(), models.data(), copy.size());
  const device::Array<char> there(copy);
  cuda_training<A>().train(reinterpret_cast<const TrainingModel<A>*>(there.data()),
                           int64_t(models.size()), bytes, queue);
  queue.finish();
}

// All steps in launches of so many.
template <class A>
Results trained(const Problem& p, int64_t at_once, int64_t most_bytes = most_shared_bytes()) {
  OnDevice<A> model(p, most_bytes);
  for (int64_t from = 0; from < p.steps; from += at_once) {
    int64_t bytes = 0;
    const TrainingModel<A> steps = model.steps(from, std::min(p.steps, from + at_once), bytes);
    launch<A>({steps}, bytes);
  }
  return model.results();
}

void shuffle_threads(uint64_t seed) {
#if !ON_DEVICE
  emulation::set_seed(seed);
#else
  (void)seed;
#endif
}

// Against the CPU; in another order of threads, and in several launches, the same bits.
template <class A>
void follows_the_cpu(const Problem& p, double tolerance) {
  const Results got = trained<A>(p, p.steps);
  sides::compare(got, on_cpu<A>(p), tolerance, p.name());
  shuffle_threads(7);
  if (!CHECK(sides::same_bits(trained<A>(p, (p.steps + 2) / 3), got))) {
    std::cerr << "  " << p.name() << ": other bits\n";
  }
}

Optimizer sgd(double weight_decay = 0) {
  Optimizer o;
  o.rule.weight_decay = weight_decay;
  return o;
}

Optimizer momentum() {
  Optimizer o = sgd(0.01);
  o.rule.momentum = 0.9;
  return o;
}

Optimizer adamw() {
  Optimizer o = sgd(0.1);
  o.rule.adamw = true;
  o.rule.beta1 = 0.9;
  o.rule.beta2 = 0.99;
  o.rule.eps = 1e-8;
  return o;
}

Optimizer clipped(Optimizer o, double norm) {
  o.max_grad_norm = norm;
  return o;
}

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
  p.rate = 1e30;
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
      const device::Array<float> factor(std::vector<float>{0.25f});
      if (on_device) {
        const Training<float>& training = cuda_training<float>();
        training.rates(3, rates.data(), before.data(), p.step, table.data(), queue);
        training.update(p, {count.data(), table.data(), factor.data()}, queue);
      } else {
        p.step.lr = lr[number];
        p.step.step = done + number + 1;
        p.step.factor = 0.25;
        cuda_kernels().of<float>().mlp_update(p, queue);
      }
      queue.finish();
      CHECK_EQ(count.values()[0], on_device ? number + 1 : number);
      results.emplace_back();
      for (const auto& values : arrays) {
        results.back().push_back(numbers::values(values->values()));
      }
    }
    CHECK(sides::same_bits(results[0], results[1]));
  }
}
