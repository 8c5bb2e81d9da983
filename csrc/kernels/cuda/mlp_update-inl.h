// The update rules of torch.optim.SGD and torch.optim.AdamW, in their order of operations, on all
// parameters of the model in one launch.
#pragma once

#include "kernels/cuda/common-inl.h"
#include "kernels/cuda/training.h"

namespace pymlp {
namespace cuda {

template <class A>
PYMLP_HOST_DEVICE StepRates<A> step_rates(const OptimizerStep& s, double lr, int64_t step) {
  if (!s.adamw) return {A(-lr), A(1), A(1)};
  return {A(-lr / (1 - pow(s.beta1, double(step)))), A(1 - lr * s.weight_decay),
          A(sqrt(1 - pow(s.beta2, double(step))))};
}

// OptimizerStep in the type arithmetic is done in.
template <class A>
struct UpdateRule {
  bool adamw, decays;
  A factor, weight_decay, momentum;  // SGD
  A towards, beta2, weight2, eps;    // AdamW
  StepRates<A> rates;

  PYMLP_HOST_DEVICE UpdateRule(const OptimizerStep& s, const StepRates<A>& rates, A factor)
      : adamw(s.adamw),
        decays(s.weight_decay != 0),
        factor(factor),
        weight_decay(A(s.weight_decay)),
        momentum(A(s.momentum)),
        towards(A(1 - s.beta1)),
        beta2(A(s.beta2)),
        weight2(A(1 - s.beta2)),
        eps(A(s.eps)),
        rates(rates) {}

  PYMLP_DEVICE void leave_out_decay() {
    decays = false;
    rates.keep = 1;
  }

  PYMLP_DEVICE void sgd(A g, A& p, A* buffer) const {
    g *= factor;
    if (decays) g = fused(weight_decay, p, g);
    if (buffer) {
      g = fused(momentum, *buffer, g);
      *buffer = g;
    }
    p = fused(rates.minus_rate, g, p);
  }

  PYMLP_DEVICE void adamw_step(A g, A& p, A& m, A& v) const {
    g *= factor;
    m = fused(towards, g - m, m);
    v = fused(weight2 * g, g, v * beta2);
    p = fused(p, rates.keep, rates.minus_rate * (m / (sqrt_of(v) / rates.root2 + eps)));
  }
};

template <class A>
struct UpdateParameters {
  struct Array {
    UpdatedParameter<A> updated;
    int64_t size;  // 0 if it is frozen
    bool decays;   // if the rule has any decay
  };
  static constexpr int threads = 256, W = vector_width<A>, arrays = 6;
  UpdateRule<A> rule;
  DeviceStep<A> step;  // if it has rates, they and the factor take the place of the rule's
  Array all[arrays];

  UpdateParameters(const MlpUpdate<A>& p, const UpdateRule<A>& rule, const DeviceStep<A>& step)
      : rule(rule),
        step(step),
        all{array(p.embedding, p.V * p.E),
            array(p.hidden_weight, p.H * p.T * p.E),
            array(p.hidden_bias, p.H, p.step.decay_biases),
            array(p.output_weight, p.V * p.H),
            array(p.output_bias, p.V, p.step.decay_biases),
            array(p.direct, p.V * p.T * p.E)} {}

  int64_t blocks() const {
    int64_t vectors = 0;
    for (const Array& array : all) vectors += divide_up(array.size, W);
    return divide_up(vectors, threads);
  }

  PYMLP_DEVICE void operator()(Thread& t) const {
    int64_t vector = t.block * threads + t.thread;
    UpdateRule<A> now = rule;
    if (step.rates) now.rates = present_rates();
    if (step.factor) now.factor = *step.factor;
#pragma unroll
    for (int i = 0; i < arrays; ++i) {
      const Array& array = all[i];
      const int64_t vectors = divide_up(array.size, W);
      if (vector >= 0 && vector < vectors) {
        if (!array.decays) now.leave_out_decay();
        update(now, array.updated, vector * W, array.size);
      }
      vector -= vectors;
    }
  }

 private:
  PYMLP_DEVICE StepRates<A> present_rates() const {
    const int64_t k = *step.number;
    if (k >= 0 && k < step.steps) return step.rates[k];
    return {not_a_number<A>(), not_a_number<A>(), not_a_number<A>()};
  }

  static Array array(const UpdatedParameter<A>& updated, int64_t size, bool decays = true) {
    return {updated, updated.parameter ? size : 0, decays};
  }

  PYMLP_DEVICE static void update(const UpdateRule<A>& rule, const UpdatedParameter<A>& u,
                                  int64_t i, int64_t size) {
    A g[W], p[W], first[W] = {}, second[W] = {};
    load_elements(u.gradient, i, size, A(0), g);
    load_elements(u.parameter, i, size, A(0), p);
    if (u.first) load_elements(u.first, i, size, A(0), first);
    if (rule.adamw) load_elements(u.second, i, size, A(0), second);
#pragma unroll
    for (int j = 0; j < W; ++j) {
      if (rule.adamw) {
        rule.adamw_step(g[j], p[j], first[j], second[j]);
      } else {
        rule.sgd(g[j], p[j], u.first ? &first[j] : nullptr);
      }
    }
    store_elements(u.parameter, i, size, p);
    if (u.first) store_elements(u.first, i, size, first);
    if (rule.adamw) store_elements(u.second, i, size, second);
  }
};

template <class A>
void mlp_update(const MlpUpdate<A>& p, const UpdateRule<A>& rule, const DeviceStep<A>& step,
                const Queue& queue) {
  const UpdateParameters<A> kernel(p, rule, step);
  launch(queue, {kernel.blocks()}, kernel);
}

template <class A>
void mlp_update(const MlpUpdate<A>& p, const Queue& queue) {
  const StepRates<A> rates = step_rates<A>(p.step, p.step.lr, p.step.step);
  mlp_update(p, UpdateRule<A>(p.step, rates, A(p.step.factor)), DeviceStep<A>{}, queue);
}

}  // namespace cuda
}  // namespace pymlp
