#include "engine/training_loop.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>

#include "kernels/dispatch.h"

namespace pymlp {

namespace {

// The gradient's squares are summed in blocks, so that the sum's order depends on no thread.
constexpr int64_t block = 4096;

template <class A>
MlpCrossEntropy<A> problem_of(const ModelSizes& sizes, const Trained<A>* parameters, int64_t N,
                              const int32_t* tokens, const int32_t* targets) {
  const auto [V, T, E, H] = sizes;
  MlpCrossEntropy<A> p{};
  p.hidden = {N,
              T,
              V,
              E,
              H,
              {tokens, false},
              parameters[0].parameter,
              parameters[1].parameter,
              parameters[2].parameter};
  p.output.N = N;
  p.output.H = H;
  p.output.V = V;
  p.output.weight = parameters[3].parameter;
  p.output.bias = parameters[4].parameter;
  p.output.target = {targets, false};
  return p;
}

void check_indices(const Steps& steps, int64_t N) {
  const int64_t* const end = steps.indices + steps.count * steps.batch_size;
  const int64_t* const bad =
      std::find_if(steps.indices, end, [N](int64_t index) { return outside(index, N); });
  if (bad != end) throw_out_of_range("the index of an example", *bad, N);
}

// Says which id of the batch it is.
[[noreturn]] void throw_bad_id(const TrainingData& data, const ModelSizes& sizes,
                               const int64_t* indices, int64_t batch_size) {
  for (int64_t b = 0; b < batch_size; ++b) {
    const int64_t n = indices[b];
    const std::string place = "of example " + std::to_string(n);
    for (int64_t t = 0; t < sizes.T; ++t) {
      const int64_t id = data.tokens[n * sizes.T + t];
      if (outside(id, sizes.V)) throw_out_of_range("tokens " + place, id, sizes.V);
    }
    if (outside(data.targets[n], sizes.V)) {
      throw_out_of_range("the target " + place, data.targets[n], sizes.V);
    }
  }
  throw std::out_of_range("pymlp: the examples were changed during a step");
}

}  // namespace

template <class A>
TrainingLoop<A>::TrainingLoop(const ModelSizes& sizes, const Optimizer& optimizer,
                              const TrainingData& data, int64_t batch_size)
    : sizes_(sizes),
      optimizer_(optimizer),
      data_(data),
      batch_size_(batch_size),
      parameter_sizes_(sizes.parameter_sizes()),
      tokens_(static_cast<size_t>(batch_size * sizes.T)),
      targets_(static_cast<size_t>(batch_size)) {
  int64_t total = 0;
  for (int64_t size : parameter_sizes_) total += size;
  gradient_.resize(static_cast<size_t>(total));
  A* at = gradient_.data();
  for (int i = 0; i < n_parameters; ++i) {
    gradients_[i] = at;
    at += parameter_sizes_[i];
  }
  const Trained<A> none[n_parameters];
  const MlpCrossEntropy<A> problem = problem_of<A>(sizes_, none, batch_size_, nullptr, nullptr);
  const Kernels<A>& kernels = active_kernels().of<A>();
  workspace_.reserve(kernels.mlp_cross_entropy_workspace(problem, true));
}

template <class A>
void TrainingLoop<A>::run(const Trained<A>* parameters, const Steps& steps,
                          const Parallel& parallel, int64_t& done) {
  check_indices(steps, data_.N);
  const Kernels<A>& kernels = active_kernels().of<A>();
  const MlpCrossEntropy<A> problem =
      problem_of<A>(sizes_, parameters, batch_size_, tokens_.data(), targets_.data());
  A loss = 0, factor = 1;
  const MlpCrossEntropyGradients<A> gradients{{gradients_[0], gradients_[1], gradients_[2]},
                                              {nullptr, gradients_[3], gradients_[4]},
                                              &factor};
  MlpUpdate<A> update = update_of(parameters);
  const bool wants_norm = steps.grad_norms || optimizer_.max_grad_norm > 0;
  for (int64_t k = 0; k < steps.count; ++k) {
    const int64_t* indices = steps.indices + k * batch_size_;
    std::atomic<bool> in_range{true};
    parallel.run({"batch", batch_size_, 16 * (sizes_.T + 1)}, [&](int64_t begin, int64_t end) {
      if (!gather(indices, begin, end)) in_range = false;
    });
    if (!in_range) throw_bad_id(data_, sizes_, indices, batch_size_);
    kernels.mlp_cross_entropy(problem, &loss, &gradients, workspace_.get(), parallel);
    double scale = factor;
    if (wants_norm) {
      const double norm = grad_norm(parameters, parallel) * scale;
      if (steps.grad_norms) steps.grad_norms[k] = norm;
      if (optimizer_.max_grad_norm > 0) {
        scale *= std::min(1.0, optimizer_.max_grad_norm / (norm + 1e-6));
      }
    }
    update.step.lr = steps.rates[k];
    update.step.step = steps.done_before + k + 1;
    update.step.factor = scale;
    kernels.mlp_update(update, parallel);
    steps.losses[k] = loss;
    ++done;
  }
}

// Examples [begin, end) of the batch as the kernels want them; false if an id is out of range.
template <class A>
bool TrainingLoop<A>::gather(const int64_t* indices, int64_t begin, int64_t end) {
  const auto [V, T, E, H] = sizes_;
  bool bad = false;
  int32_t* to = tokens_.data() + begin * T;
  for (int64_t b = begin; b < end; ++b) {
    // Rows lie anywhere: they are asked for before it is their turn.
    const int64_t next = indices[std::min(b + 16, end - 1)];
    __builtin_prefetch(data_.tokens + next * T);
    __builtin_prefetch(data_.targets + next);
    const int64_t* from = data_.tokens + indices[b] * T;
    for (int64_t t = 0; t < T; ++t) {
      bad |= outside(from[t], V);
      *to++ = static_cast<int32_t>(from[t]);
    }
    const int64_t target = data_.targets[indices[b]];
    bad |= outside(target, V);
    targets_[static_cast<size_t>(b)] = static_cast<int32_t>(target);
  }
  return !bad;
}

template <class A>
double TrainingLoop<A>::grad_norm(const Trained<A>* parameters, const Parallel& parallel) {
  const Kernels<A>& kernels = active_kernels().of<A>();
  double sum = 0;
  for (int i = 0; i < n_parameters; ++i) {
    if (parameters[i].frozen) continue;
    const int64_t size = parameter_sizes_[i], blocks = (size + block - 1) / block;
    squares_.resize(std::max(squares_.size(), static_cast<size_t>(blocks)));
    parallel.run({"norm", blocks, block}, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t count = std::min(block, size - b * block);
        squares_[static_cast<size_t>(b)] = kernels.sum_of_squares(count, gradients_[i] + b * block);
      }
    });
    for (int64_t b = 0; b < blocks; ++b) sum += squares_[static_cast<size_t>(b)];
  }
  return std::sqrt(sum);
}

template <class A>
MlpUpdate<A> TrainingLoop<A>::update_of(const Trained<A>* parameters) const {
  MlpUpdate<A> update{};
  update.N = batch_size_;
  update.T = sizes_.T;
  update.V = sizes_.V;
  update.E = sizes_.E;
  update.H = sizes_.H;
  UpdatedParameter<A>* const updated[n_parameters] = {&update.embedding, &update.hidden_weight,
                                                      &update.hidden_bias, &update.output_weight,
                                                      &update.output_bias};
  for (int i = 0; i < n_parameters; ++i) {
    const Trained<A>& p = parameters[i];
    *updated[i] = {gradients_[i], p.frozen ? nullptr : p.parameter, p.first, p.second};
  }
  update.step = optimizer_.rule;
  return update;
}

template class TrainingLoop<float>;
template class TrainingLoop<double>;

}  // namespace pymlp
