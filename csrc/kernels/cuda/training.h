// Whole training steps on a CUDA device: what `training.cu` compiles, and `training_clusters.cu`
// for devices that have clusters. Includes nothing of CUDA.
//
// Two ways. `train` is one launch for many steps of many models: a block, or a cluster of blocks,
// trains a model whose parameters stay in shared memory. `rates` and `update` are the parts of a
// step of any size that are missing in Operators, and `dropout_mask` that of a step with dropout:
// they take all that changes from step to step from the device, so that a captured CUDA graph of a
// step can be replayed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/queue.h"
#include "kernels/dropout.h"

namespace pymlp {

// What an update needs that differs from step to step.
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
  // Set by Training::place. Each block of a cluster has its own, one after the other.
  bool state_in_shared, gradient_in_shared;
  A *state, *gradient;       // on the device, where they are not in shared memory
  StepRates<A>* step_rates;  // (steps)
};

// A step of a captured graph: its number among those of `rates`, the rates themselves and a factor
// of the gradients are read on the device.
template <class A>
struct DeviceStep {
  int64_t* number = nullptr;            // (1), from 0
  const StepRates<A>* rates = nullptr;  // by number
  const A* factor = nullptr;            // (1), or null: 1
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
  // The blocks of a cluster on the current device: 1 where there are no clusters.
  int (*largest_cluster)();
  // Bytes of shared memory in each block of a cluster of so many without which a model of these
  // sizes cannot be trained by `train`.
  int64_t (*least_shared_bytes)(const TrainingSizes&, int cluster);
  // Chooses what lies in shared memory, of which a block has `most_shared_bytes`, and where the
  // rest lies in `workspace`; returns the bytes of shared memory. The workspace is the device's.
  int64_t (*place)(TrainingModel<A>&, int cluster, int64_t most_shared_bytes, void* workspace);
  size_t (*workspace)(const TrainingModel<A>&, int cluster, int64_t most_shared_bytes);
  // models: on the device, all trained by clusters of so many blocks. shared_bytes: the largest
  // that `place` returned.
  void (*train)(const TrainingModel<A>* models, int64_t count, int cluster, int64_t shared_bytes,
                const Queue&);

  // out[k] = the rates of update number *done + k + 1 at learning rate lr[k].
  void (*rates)(int64_t count, const double* lr, const int64_t* done, const OptimizerStep& rule,
                StepRates<A>* out, const Queue&);
  // As Operators::mlp_update, of whose step lr, step and factor are not used; then adds 1 to
  // DeviceStep::number.
  void (*update)(const MlpUpdate<A>&, const DeviceStep<A>&, const Queue&);
  void (*dropout_mask)(const DropoutMask<A>&, const Queue&);
};

template <class A>
const Training<A>& cuda_training();
template <>
const Training<float>& cuda_training<float>();
template <>
const Training<double>& cuda_training<double>();

// How many blocks train a model of these sizes on the current device, of whose shared memory each
// has `most_shared_bytes`: the fewest of 1, 2, 4 and 8 that have room for it; 0 if none have.
template <class A>
int smallest_cluster(const TrainingSizes& sizes, int64_t most_shared_bytes) {
  const Training<A>& training = cuda_training<A>();
  const auto fits = [&](int cluster) {
    return training.least_shared_bytes(sizes, cluster) <= most_shared_bytes;
  };
  if (fits(1)) return 1;
  const int largest = training.largest_cluster();
  int cluster = 2;
  while (cluster <= largest && !fits(cluster)) cluster *= 2;
  return cluster <= largest ? cluster : 0;
}

// Bytes of shared memory that a block may have on the current device; 0 if there is no answer.
int64_t most_shared_bytes();

}  // namespace pymlp
