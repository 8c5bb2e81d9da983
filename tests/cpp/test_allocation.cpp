// Training steps take no memory: the program's operator new is replaced by one that counts.
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "check.h"
#include "engine/team.h"
#include "engine/training_loop.h"

namespace {

std::atomic<int64_t> allocations{0};

void* counted(size_t size, size_t alignment) {
  ++allocations;
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size) != 0) throw std::bad_alloc();
  return memory;
}

}  // namespace

// The other forms of new call these two.
void* operator new(size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using pymlp::ModelSizes;

constexpr int64_t n_examples = 50, n_steps = 4;

template <class A>
void check_steps(const ModelSizes& sizes, int64_t B, bool adamw, bool with_norm,
                 int64_t noise = 0) {
  const int64_t V = sizes.V, T = sizes.T;
  std::vector<int64_t> tokens(n_examples * T), targets(n_examples), indices(n_steps * B);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int64_t>(i) * 7 % V;
  for (size_t i = 0; i < targets.size(); ++i) targets[i] = static_cast<int64_t>(i) * 3 % V;
  for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<int64_t>(i) % n_examples;
  std::vector<std::vector<A>> arrays;
  std::array<pymlp::Trained<A>, pymlp::most_parameters> trained;
  for (int64_t size : sizes.parameter_sizes()) {
    for (int i = 0; i < 3; ++i) arrays.emplace_back(size, A(0.01) * A(i == 0));
  }
  for (size_t i = 0; i < trained.size(); ++i) {
    trained[i] = {arrays[3 * i].data(), false, arrays[3 * i + 1].data(), arrays[3 * i + 2].data()};
  }
  pymlp::Optimizer optimizer;
  optimizer.rule.adamw = adamw;
  optimizer.rule.momentum = 0.9;
  optimizer.max_grad_norm = with_norm ? 1 : 0;
  std::vector<double> rates(n_steps, 0.1), losses(n_steps), norms(n_steps);
  pymlp::Steps steps;
  steps.count = n_steps;
  steps.batch_size = B;
  steps.indices = indices.data();
  steps.rates = rates.data();
  steps.losses = losses.data();
  steps.grad_norms = with_norm ? norms.data() : nullptr;
  const std::vector<int64_t> counts(static_cast<size_t>(V), 1);
  std::optional<pymlp::Candidates> candidates;
  if (noise > 0) candidates.emplace(counts.data(), V, noise, B, 1);
  const pymlp::Objective objective{noise > 0 ? 0 : 0.1, 0.01, sizes.direct ? 0.2 : 0, 5};
  pymlp::TrainingLoop<A> loop(sizes, optimizer, objective,
                              {n_examples, tokens.data(), targets.data()}, B, candidates);
  const pymlp::Team team(3);
  int64_t done = 0;
  const int64_t before = allocations;
  loop.run(trained.data(), steps, team, done);
  CHECK_EQ(done, n_steps);
  CHECK_EQ(allocations.load(), before);
}

}  // namespace

TEST(steps_allocate_nothing) {
  const int64_t before = allocations;
  operator delete(operator new(1));
  CHECK_EQ(allocations.load(), before + 1);
  for (bool adamw : {false, true}) {
    for (bool with_norm : {false, true}) {
      check_steps<float>({27, 3, 10, 200}, 32, adamw, with_norm);
      check_steps<double>({60, 2, 5, 40}, 700, adamw, with_norm);  // more logits than hidden units
      check_steps<float>({1500, 2, 5, 40}, 32, adamw, with_norm);
      check_steps<float>({27, 3, 10, 20, true}, 32, adamw, with_norm);
      check_steps<float>({1500, 2, 5, 40}, 32, adamw, with_norm, 100);
    }
  }
}
