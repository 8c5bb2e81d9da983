// The native training engine: whole steps (batch, forward, backward, update) without Python.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "engine/batch.h"
#include "engine/model.h"
#include "engine/sampled_output.h"
#include "kernels/kernels.h"

namespace pymlp {

struct Optimizer {
  OptimizerStep rule;        // lr, step and factor are set step by step
  double max_grad_norm = 0;  // > 0: gradients are scaled down to it, as clip_grad_norm_ of torch
  bool sparse_embedding = false;  // rows of the embedding that do not occur in a step's batch stay
                                  // as they are, and so does the optimizer's state of them
};

// Options of a step's objective. The default is the plain cross-entropy of the whole network.
struct Objective {
  double label_smoothing = 0, z_loss = 0;  // see CrossEntropyOptions
  double dropout = 0;                      // see engine/dropout.h
  uint64_t dropout_seed = 0;
};

// A run of steps.
struct Steps {
  int64_t count = 0, batch_size = 0;
  const int64_t* indices = nullptr;  // (count, batch_size), of examples
  const double* rates = nullptr;     // (count), learning rates
  int64_t done_before = 0;           // updates before the first of these, for AdamW
  int64_t first = 0;                 // number of the first, for dropout and noise
  double* losses = nullptr;          // (count) out: mean loss of each batch before the update
  double* grad_norms = nullptr;      // (count) out, before clipping; or null
};

// Scratch of training steps of one model and one batch size.
template <class A>
class TrainingLoop {
 public:
  // candidates: of the sampled softmax; without them it is exact.
  TrainingLoop(const ModelSizes& sizes, const Optimizer& optimizer, const Objective& objective,
               const TrainingData& data, int64_t batch_size,
               std::optional<Candidates> candidates = std::nullopt);

  // Carries out the steps on parameters[0..sizes.n_parameters()). `done` counts those that are
  // complete: if `parallel` throws, the state is that after them. std::out_of_range: for an index
  // that is not in [0, N), before the first step; for an id that is not in [0, V), before its step.
  void run(const Trained<A>* parameters, const Steps& steps, const Parallel& parallel,
           int64_t& done);

 private:
  class OutputWeightInBlocks;

  void clip(const Trained<A>* parameters, const Parallel& parallel, MlpUpdate<A>& update,
            double* norm);
  double grad_norm(const Trained<A>* parameters, const Parallel& parallel);
  void add_squares(int parameter, const Parallel& parallel, double& sum);
  void drop(int64_t step, const Parallel& parallel);
  MlpStep<A> step_of(const Trained<A>* parameters);
  void sample(int64_t step, const Trained<A>* parameters, const Parallel& parallel);

  ModelSizes sizes_;
  Optimizer optimizer_;
  Objective objective_;
  int64_t n_examples_, batch_size_;
  bool sparse_;     // the gradient of the embedding
  bool in_blocks_;  // the output weight, while steps are carried out
  std::optional<SampledOutput<A>> sampled_;
  int64_t outputs_;  // rows of the output layer in a step
  std::array<int64_t, most_parameters> gradient_sizes_;
  Batch batch_;
  std::vector<uint8_t> input_kept_, hidden_kept_;  // (B, T*E), (B, H) with dropout
  std::vector<int32_t> sparse_tokens_;             // see SparseRows
  int64_t sparse_count_ = 0;
  Scratch memory_;
  A* gradients_[most_parameters];
  A* output_weight_[3];  // in blocks: the parameter, its first and second state
  Scratch workspace_;
  std::vector<double> squares_;  // sums of blocks of the gradient
};

}  // namespace pymlp
