// Whole runs of the training kernel, and of the engine of the CPU to compare them with.
#pragma once

#include <functional>
#include <memory>
#include <sstream>

#include "engine/training_loop.h"
#include "kernels/cuda/training.h"
#include "sides.h"

namespace runs {

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
    const size_t workspace = training.workspace(m, most_bytes_);
    workspaces_.emplace_back(new device::Array<char>(int64_t(workspace)));
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

inline void shuffle_threads(uint64_t seed) {
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

inline Optimizer sgd(double weight_decay = 0) {
  Optimizer o;
  o.rule.weight_decay = weight_decay;
  return o;
}

inline Optimizer momentum() {
  Optimizer o = sgd(0.01);
  o.rule.momentum = 0.9;
  return o;
}

inline Optimizer adamw() {
  Optimizer o = sgd(0.1);
  o.rule.adamw = true;
  o.rule.beta1 = 0.9;
  o.rule.beta2 = 0.99;
  o.rule.eps = 1e-8;
  return o;
}

inline Optimizer clipped(Optimizer o, double norm) {
  o.max_grad_norm = norm;
  return o;
}

}  // namespace runs
