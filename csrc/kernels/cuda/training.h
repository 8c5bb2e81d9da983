// Whole training steps on a CUDA device: what `training.cu` compiles. Includes nothing of CUDA.
//
// Two ways. `train` is one launch for many steps of many models: a block trains a model whose
// parameters stay in its shared memory. `rates`, `batch` and `update` are the parts of a step of
// any size that are missing in Operators, and `dropout_mask` that of a step with dropout: they take
// all that changes from step to step from the device, so that a captured CUDA graph of a step can
// be replayed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/queue.h"
#include "kernels/dropout.h"

namespace pymlp {

// The numbers of an update that differ from step to step.
template <class A>
struct StepRates {
  A minus_rate = 0;       // SGD: -lr; AdamW: -lr / (1 - beta1^step)
  A keep = 1, root2 = 1;  // AdamW: 1 - lr * weight_decay, sqrt(1 - beta2^step)
};

struct TrainingSizes {
  int32_t V, T, E, H;  // vocab_size, block_size, n_embd, n_hidden
  int32_t B;           // examples of a step
};

// In the order of a model's state_dict: embedding, hidden weight and bias, output weight and bias.
constexpr int trained_arrays = 5;

// A model on its way, and a run of its steps. All pointers are the device's, and so is the array of
// these that `train` reads.
template <class A>
struct TrainingModel {
  TrainingSizes sizes;
  A* parameters[trained_arrays];
  A* first[trained_arrays];   // SGD: momentum buffers, or null; AdamW: exp_avg
  A* second[trained_arrays];  // AdamW: exp_avg_sq, else null
  bool trained[trained_arrays];
  OptimizerStep rule;    // lr, step and factor are not used
  double max_grad_norm;  // > 0: gradients are scaled down to it
  int64_t N;             // examples of the data; ids and indices out of range give NaN
  Ids tokens, targets;   // (N, T), (N)
  Ids indices;           // (steps, B), of examples
  int64_t steps;         // of this run
  const int64_t* done;   // (1): updates before the first of these
  int64_t* done_after;   // (1) out, may be `done`: those after the last
  const double* rates;   // (steps): learning rates
  double* losses;        // (steps) out: mean loss of each batch before the update
  double* grad_norms;    // (steps) out, before clipping; or null
  // Set by Training::place.
  bool state_in_shared, gradient_in_shared;
  A *state, *gradient;       // on the device, where they are not in shared memory
  StepRates<A>* step_rates;  // (steps)
};

// A step of a captured graph: its number among those of `rates`, the rates themselves and a factor
// of the gradients are read on the device.
template <class A>
struct DeviceStep {
  int64_t steps = 0;          // there is room for; beyond, rates are NaN and no loss noted
  int64_t* number = nullptr;  // (1), from 0
  const StepRates<A>* rates = nullptr;  // by number
  const A* factor = nullptr;            // (1), or null: 1
  const A* loss = nullptr;              // (1)
  double* losses = nullptr;             // by number, out
};

// The examples of a step, whose number is read on the device.
struct StepBatch {
  int64_t steps, N, T, B;
  Ids tokens, targets;             // (N, T), (N): all there are
  const int32_t* indices;          // (steps, B)
  const int64_t* number;           // (1), from 0
  void *tokens_out, *targets_out;  // (B, T), (B): of the types of those
};

// Factors (rows, columns) of the units of a layer, drawn for a step whose number is read on the
// device: 0 with probability p, else 1 / (1 - p).
template <class A>
struct DropoutMask {
  uint64_t seed;
  DropoutLayer layer;
  double p;  // in [0, 1)
  int64_t rows, columns;
  const int64_t* step;  // (1), from 0
  A* out;
};

template <class A>
struct Training {
  // Bytes of shared memory without which a model of these sizes cannot be trained by `train`.
  int64_t (*least_shared_bytes)(const TrainingSizes&);
  // Chooses what lies in shared memory, of which a block has `most_shared_bytes`, and where the
  // rest lies in `workspace`; returns the bytes of shared memory. The workspace is the device's.
  int64_t (*place)(TrainingModel<A>&, int64_t most_shared_bytes, void* workspace);
  size_t (*workspace)(const TrainingModel<A>&, int64_t most_shared_bytes);
  // models: on the device. shared_bytes: the largest that `place` returned.
  void (*train)(const TrainingModel<A>* models, int64_t count, int64_t shared_bytes, const Queue&);

  // out[k] = the rates of update number *done + k + 1 at learning rate lr[k].
  void (*rates)(int64_t count, const double* lr, const int64_t* done, const OptimizerStep& rule,
                StepRates<A>* out, const Queue&);
  void (*batch)(const StepBatch&, const Queue&);
  // As Operators::mlp_update, of whose step lr, step and factor are not used; then notes the loss
  // and adds 1 to DeviceStep::number.
  void (*update)(const MlpUpdate<A>&, const DeviceStep<A>&, const Queue&);
  void (*dropout_mask)(const DropoutMask<A>&, const Queue&);
};

template <class A>
const Training<A>& cuda_training();
template <>
const Training<float>& cuda_training<float>();
template <>
const Training<double>& cuda_training<double>();

// Bytes of shared memory that a block may have on the current device; 0 if there is no answer.
int64_t most_shared_bytes();

}  // namespace pymlp
