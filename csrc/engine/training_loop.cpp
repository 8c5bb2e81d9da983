#include "engine/training_loop.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/dropout.h"
#include "kernels/dispatch.h"

namespace pymlp {

namespace {

// The gradient's squares are summed in blocks, so that the sum's order depends on no thread.
constexpr int64_t block = 4096;

// Whether the gradient of the embedding need have no other rows than those that occur: it is asked
// for, or makes no difference where it costs nothing. By plain SGD no other row is moved, unless by
// a norm that is not finite.
bool is_sparse(const Optimizer& optimizer, bool by_vocabulary) {
  const OptimizerStep& rule = optimizer.rule;
  const bool moves_all =
      rule.adamw || rule.momentum != 0 || rule.weight_decay != 0 || optimizer.max_grad_norm > 0;
  return optimizer.sparse_embedding || (by_vocabulary && !moves_all);
}

void check_indices(const Steps& steps, int64_t N) {
  const int64_t* const end = steps.indices + steps.count * steps.batch_size;
  const int64_t* const bad =
      std::find_if(steps.indices, end, [N](int64_t index) { return outside(index, N); });
  if (bad != end) throw_out_of_range("the index of an example", *bad, N);
}

}  // namespace

// The output weight and its optimizer's state as long as steps are carried out: in the blocks of
// the kernels, and afterwards, whatever ended the steps, back in the caller's arrays.
template <class A>
class TrainingLoop<A>::OutputWeightInBlocks {
 public:
  OutputWeightInBlocks(const TrainingLoop& loop, const Trained<A>& trained)
      : loop_(loop),
        dense_{trained.parameter, trained.first, trained.second},
        frozen_(trained.frozen) {
    for_arrays([&](const auto& kernels, A* dense, A* blocks) {
      kernels.to_blocks(loop.batch_size_, loop.sizes_.V, loop.sizes_.H, dense, blocks);
    });
  }
  ~OutputWeightInBlocks() {
    if (frozen_) return;
    for_arrays([&](const auto& kernels, A* dense, A* blocks) {
      kernels.from_blocks(loop_.batch_size_, loop_.sizes_.V, loop_.sizes_.H, blocks, dense);
    });
  }
  OutputWeightInBlocks(const OutputWeightInBlocks&) = delete;
  OutputWeightInBlocks& operator=(const OutputWeightInBlocks&) = delete;

 private:
  template <class Body>
  void for_arrays(const Body& body) const {
    for (int i = 0; i < 3; ++i) {
      A* const blocks = loop_.output_weight_[i];
      if (blocks && dense_[i]) body(active_kernels().of<A>(), dense_[i], blocks);
    }
  }

  const TrainingLoop& loop_;
  A* const dense_[3];
  const bool frozen_;
};

template <class A>
TrainingLoop<A>::TrainingLoop(const ModelSizes& sizes, const Optimizer& optimizer,
                              const Objective& objective, const TrainingData& data,
                              int64_t batch_size, std::optional<Candidates> candidates)
    : sizes_(sizes),
      optimizer_(optimizer),
      objective_(objective),
      n_examples_(data.N),
      batch_size_(batch_size),
      outputs_(sizes.V),
      batch_(sizes, data, batch_size) {
  const int states = optimizer.rule.adamw ? 2 : optimizer.rule.momentum != 0 ? 1 : 0;
  if (candidates) {
    sampled_.emplace(sizes, states, *std::move(candidates));
    outputs_ = sampled_->candidates().most();
  }
  gradient_sizes_ = sizes.with_outputs(outputs_);
  const bool gathers = sizes.direct || objective.dropout > 0 || sampled_;
  sparse_ = is_sparse(optimizer, divides_vocabulary(sizes.V, sizes.H, gathers));
  in_blocks_ = !divides_vocabulary(sizes.V, sizes.H, gathers || sparse_);
  const Kernels<A>& kernels = active_kernels().of<A>();
  const int64_t in_blocks = in_blocks_ ? kernels.in_blocks_size(batch_size, sizes.V, sizes.H) : 0;
  if (in_blocks_) gradient_sizes_[3] = in_blocks;
  // Each array begins a cache line of its own.
  constexpr int64_t line = 64 / sizeof(A);
  const auto padded = [](int64_t size) { return (size + line - 1) / line * line; };
  int64_t total = (1 + states) * padded(in_blocks);
  for (int64_t size : gradient_sizes_) total += padded(size);
  memory_.reserve(static_cast<size_t>(total) * sizeof(A));
  A* at = static_cast<A*>(memory_.get());
  const auto take = [&](int64_t size) { return std::exchange(at, at + padded(size)); };
  for (int i = 0; i < sizes.n_parameters(); ++i) gradients_[i] = take(gradient_sizes_[i]);
  for (int i = 0; i < 3; ++i)
    output_weight_[i] = in_blocks_ && i <= states ? take(in_blocks) : nullptr;
  const int64_t most_rows = std::min(sizes.V, batch_size * sizes.T);
  if (sparse_) sparse_tokens_.resize(static_cast<size_t>(most_rows));
  const int64_t largest = *std::max_element(gradient_sizes_.begin(), gradient_sizes_.end());
  squares_.resize(static_cast<size_t>(std::max(most_rows, (largest + block - 1) / block)));
  if (objective.dropout > 0) {
    input_kept_.resize(static_cast<size_t>(batch_size * sizes.T * sizes.E));
    hidden_kept_.resize(static_cast<size_t>(batch_size * sizes.H));
  }
  Trained<A> anything[most_parameters];
  for (int i = 0; i < sizes.n_parameters(); ++i) anything[i].parameter = gradients_[i];
  // With fewer candidates a chunk has more examples, so any number of them may need most.
  for (int64_t rows = outputs_; rows >= (sampled_ ? 1 : outputs_); --rows) {
    MlpStep<A> step = step_of(anything);
    step.loss.output.V = step.update.outputs = rows;
    workspace_.reserve(kernels.mlp_steps_workspace(step));
  }
}

template <class A>
void TrainingLoop<A>::run(const Trained<A>* parameters, const Steps& steps,
                          const Parallel& parallel, int64_t& done) {
  check_indices(steps, n_examples_);
  const Kernels<A>& kernels = active_kernels().of<A>();
  const OutputWeightInBlocks in_blocks(*this, parameters[3]);
  A loss = 0, factor = 1;
  const bool wants_norm = steps.grad_norms || optimizer_.max_grad_norm > 0;
  MlpStep<A> step;
  const auto prepare = [&](const Trained<A>* trained) {
    step = step_of(trained);
    step.gradients.factor = &factor;
    if (!wants_norm) kernels.mlp_steps(step, workspace_.get());
  };
  if (!sampled_) prepare(parameters);
  for (int64_t k = 0; k < steps.count; ++k) {
    batch_.gather(steps.indices + k * batch_size_, parallel);
    if (objective_.dropout > 0) drop(steps.first + k, parallel);
    if (sampled_) {
      sample(steps.first + k, parameters, parallel);
      prepare(sampled_->parameters());
    }
    step.update.step.lr = steps.rates[k];
    step.update.step.step = steps.done_before + k + 1;
    if (wants_norm) {
      kernels.mlp_cross_entropy(step.loss, &loss, &step.gradients, workspace_.get(), parallel);
      step.update.step.factor = factor;
      clip(parameters, parallel, step.update, steps.grad_norms ? steps.grad_norms + k : nullptr);
      kernels.mlp_update(step.update, parallel);
    } else {
      kernels.mlp_step(workspace_.get(), step.update.step, &loss, parallel);
    }
    if (sampled_) {
      sampled_->scatter(parameters, parallel);
      loss += A(sampled_->candidates().mean_offset());
    }
    steps.losses[k] = loss;
    ++done;
  }
}

// Scales the update down to the norm allowed; writes the norm before that, unless null.
template <class A>
void TrainingLoop<A>::clip(const Trained<A>* parameters, const Parallel& parallel,
                           MlpUpdate<A>& update, double* norm) {
  const double before = grad_norm(parameters, parallel) * update.step.factor;
  if (norm) *norm = before;
  if (optimizer_.max_grad_norm > 0) {
    update.step.factor *=
        std::min(optimizer_.max_grad_norm / (before + 1e-6), 1.0);  // nan stays nan
  }
}

// The units that step number `step` keeps.
template <class A>
void TrainingLoop<A>::drop(int64_t step, const Parallel& parallel) {
  const int64_t K = sizes_.T * sizes_.E, H = sizes_.H;
  constexpr int64_t cost = 16;
  parallel.run({"dropout", batch_size_, cost * (K + H)}, [&](int64_t begin, int64_t end) {
    const auto draw = [&](DropoutLayer layer, int64_t columns, std::vector<uint8_t>& kept) {
      draw_kept(objective_.dropout_seed, step, layer, objective_.dropout, begin, end, columns,
                kept.data() + begin * columns);
    };
    draw(DropoutLayer::input, K, input_kept_);
    draw(DropoutLayer::hidden, H, hidden_kept_);
  });
}

// The output layer of step number `step`, which is of its candidates alone.
template <class A>
void TrainingLoop<A>::sample(int64_t step, const Trained<A>* parameters, const Parallel& parallel) {
  sampled_->gather(step, batch_.targets(), parameters, parallel);
  outputs_ = sampled_->candidates().count();
  gradient_sizes_ = sizes_.with_outputs(outputs_);
}

template <class A>
double TrainingLoop<A>::grad_norm(const Trained<A>* parameters, const Parallel& parallel) {
  double sum = 0;
  for (int i = 0; i < sizes_.n_parameters(); ++i) {
    if (!parameters[i].frozen) add_squares(i, parallel, sum);
  }
  return std::sqrt(sum);
}

// Adds those of a parameter's gradient.
template <class A>
void TrainingLoop<A>::add_squares(int parameter, const Parallel& parallel, double& sum) {
  const Kernels<A>& kernels = active_kernels().of<A>();
  const A* const gradient = gradients_[parameter];
  const int64_t size = gradient_sizes_[parameter], E = sizes_.E;
  const bool rows = parameter == 0 && sparse_;
  const int64_t parts = rows ? sparse_count_ : (size + block - 1) / block;
  parallel.run({"norm", parts, rows ? E : block}, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto p = static_cast<size_t>(i);
      const int64_t first = rows ? sparse_tokens_[p] * E : i * block;
      squares_[p] =
          kernels.sum_of_squares(rows ? E : std::min(block, size - first), gradient + first);
    }
  });
  for (int64_t i = 0; i < parts; ++i) sum += squares_[static_cast<size_t>(i)];
}

template <class A>
MlpStep<A> TrainingLoop<A>::step_of(const Trained<A>* parameters) {
  const int64_t V = sizes_.V, T = sizes_.T, E = sizes_.E, H = sizes_.H;
  const int64_t N = batch_size_;
  MlpStep<A> step{};
  step.loss.hidden = {N,
                      T,
                      V,
                      E,
                      H,
                      batch_.tokens(),
                      parameters[0].parameter,
                      parameters[1].parameter,
                      parameters[2].parameter};
  step.loss.output.N = N;
  step.loss.output.H = H;
  step.loss.output.V = outputs_;
  step.loss.output.weight = in_blocks_ ? output_weight_[0] : parameters[3].parameter;
  step.loss.output.bias = sampled_ ? sampled_->bias_with_offsets() : parameters[4].parameter;
  step.loss.output.target = sampled_ ? sampled_->candidates().places() : batch_.targets();
  step.loss.output_weight_in_blocks = in_blocks_;
  step.loss.output.options.label_smoothing = objective_.label_smoothing;
  step.loss.output.options.z_loss = objective_.z_loss;
  if (objective_.dropout > 0) {
    step.loss.dropout = {input_kept_.data(), hidden_kept_.data(), objective_.dropout};
  }
  if (sparse_) step.loss.sparse = {sparse_tokens_.data(), &sparse_count_};
  if (sizes_.direct) {
    step.loss.direct = parameters[5].parameter;
    step.gradients.direct = gradients_[5];
  }
  step.gradients.hidden = {gradients_[0], gradients_[1], gradients_[2]};
  step.gradients.output = {nullptr, gradients_[3], gradients_[4]};
  MlpUpdate<A>& update = step.update;
  update = {N, T, V, E, H, {}, {}, {}, {}, {}, {}, optimizer_.rule, in_blocks_, step.loss.sparse};
  update.outputs = outputs_;
  UpdatedParameter<A>* const updated[most_parameters] = {&update.embedding,   &update.hidden_weight,
                                                         &update.hidden_bias, &update.output_weight,
                                                         &update.output_bias, &update.direct};
  for (int i = 0; i < sizes_.n_parameters(); ++i) {
    const Trained<A>& p = parameters[i];
    *updated[i] = {gradients_[i], p.frozen ? nullptr : p.parameter, p.first, p.second};
  }
  if (in_blocks_ && update.output_weight.parameter) {
    update.output_weight = {gradients_[3], output_weight_[0], output_weight_[1], output_weight_[2]};
  }
  return step;
}

template class TrainingLoop<float>;
template class TrainingLoop<double>;

}  // namespace pymlp
