// Training steps on the device, in the types that models are trained in.
#include "kernels/cuda/dropout-inl.h"
#include "kernels/cuda/step_batch-inl.h"
#include "kernels/cuda/training-inl.h"

namespace pymlp {
namespace cuda {
namespace {

template <class A>
struct MakeRates {
  static constexpr int threads = 128;
  int64_t count;
  const double* lr;
  const int64_t* done;
  OptimizerStep rule;
  StepRates<A>* out;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t k = t.block * threads + t.thread;
    if (k < count) out[k] = step_rates<A>(rule, lr[k], *done + k + 1);
  }
};

template <class A>
int64_t least_shared_bytes(const TrainingSizes& sizes) {
  return TrainingLayout::shared_bytes<A>(sizes, TrainModels<A>::threads / warp_size);
}

// The end of a step: its loss, and that it is done.
template <class A>
struct CountStep {
  static constexpr int threads = warp_size;
  DeviceStep<A> step;

  PYMLP_DEVICE void operator()(Thread& t) const {
    if (t.thread != 0) return;
    const int64_t k = (*step.number)++;
    if (k >= 0 && k < step.steps) step.losses[k] = double(*step.loss);
  }
};

// State and gradients do not have to be in shared memory, but are as long as there is room. The
// state comes first, since it is read and written at every step.
template <class A>
int64_t place(TrainingModel<A>& m, int64_t most, Workspace& workspace) {
  int64_t bytes = least_shared_bytes<A>(m.sizes);
  const TrainingLayout layout(m.sizes);
  const int64_t array = layout.array_bytes<A>();
  const int states = m.rule.adamw ? 2 : m.rule.momentum != 0 ? 1 : 0;
  m.state_in_shared = bytes + states * array <= most;
  if (m.state_in_shared) bytes += states * array;
  const int gradients = m.grad_norms || m.max_grad_norm > 0 ? 1 : 0;
  m.gradient_in_shared = bytes + gradients * array <= most;
  if (m.gradient_in_shared) bytes += gradients * array;
  m.state = workspace.take<A>(m.state_in_shared ? 0 : states * layout.parameters);
  m.gradient = workspace.take<A>(m.gradient_in_shared ? 0 : gradients * layout.parameters);
  m.step_rates = workspace.take<StepRates<A>>(m.steps);
  return bytes;
}

template <class A>
Training<A> training() {
  Training<A> k{};
  k.least_shared_bytes = least_shared_bytes<A>;
  k.place = [](TrainingModel<A>& model, int64_t most, void* memory) {
    Workspace workspace(memory);
    return place(model, most, workspace);
  };
  k.workspace = [](const TrainingModel<A>& model, int64_t most) {
    Workspace workspace(nullptr);
    TrainingModel<A> measured = model;
    place(measured, most, workspace);
    return workspace.bytes();
  };
  k.train = [](const TrainingModel<A>* models, int64_t count, int64_t bytes, const Queue& queue) {
    allow_shared_bytes<TrainModels<A>>(queue);
    launch(queue, {count}, TrainModels<A>{models}, bytes);
  };
  k.rates = [](int64_t count, const double* lr, const int64_t* done, const OptimizerStep& rule,
               StepRates<A>* out, const Queue& queue) {
    const MakeRates<A> kernel{count, lr, done, rule, out};
    launch(queue, {divide_up(count, kernel.threads)}, kernel);
  };
  k.update = [](const MlpUpdate<A>& p, const DeviceStep<A>& step, const Queue& queue) {
    mlp_update(p, UpdateRule<A>(p.step, {}, A(1)), step, queue);
    launch(queue, {1}, CountStep<A>{step});
  };
  k.batch = step_batch;
  k.dropout_mask = dropout_mask<A>;
  return k;
}

}  // namespace
}  // namespace cuda

template <>
const Training<float>& cuda_training<float>() {
  static const Training<float> table = cuda::training<float>();
  return table;
}

template <>
const Training<double>& cuda_training<double>() {
  static const Training<double> table = cuda::training<double>();
  return table;
}

int64_t most_shared_bytes() { return cuda::most_shared_bytes(); }

}  // namespace pymlp
