// The training kernel: a block trains a model for many steps without leaving the device.
// docs/cuda.md has its phases in a diagram.
//
// Every element of a gradient is made by one thread, which adds its terms in an order that depends
// on sizes and ids alone, and which updates the parameter at once; only where the gradients' norm
// is wanted are they kept until all are there.
#pragma once

#include "kernels/cuda/mlp_update-inl.h"
#include "kernels/cuda/placed-inl.h"
#include "kernels/cuda/training_layout-inl.h"
#include "kernels/cuda/training_products-inl.h"

namespace pymlp {
namespace cuda {

// The work of one thread in the phases of a step.
template <class A>
class TrainingBlock {
 public:
  PYMLP_DEVICE TrainingBlock(Thread& thread, const TrainingModel<A>& model)
      : t(thread),
        m(model),
        l(m.sizes),
        wants_norm(m.grad_norms || m.max_grad_norm > 0),
        states(m.rule.adamw ? 2
               : m.first[0] ? 1
                            : 0),
        parameters(t.shared<A>(l.parameters)),
        input(t.shared<A>(l.input())),
        hidden(t.shared<A>(l.hidden())),
        dhidden(t.shared<A>(l.dhidden())),
        dlogits(t.shared<A>(l.dlogits())),
        even_ids(t.shared<int32_t>(l.ids())),
        odd_ids(t.shared<int32_t>(l.ids())),
        first_with(t.shared<int32_t>(l.z.V)),
        next_with(t.shared<int32_t>(l.z.B * l.z.T)),
        row_losses(t.shared<double>(l.z.B)),
        sums(t.shared<double>(t.warps)),
        first(t, states > 0 ? l.parameters : 0, m.state_in_shared, m.state),
        second(t, states > 1 ? l.parameters : 0, m.state_in_shared, m.state + l.parameters),
        gradient(t, wants_norm ? l.parameters : 0, m.gradient_in_shared, m.gradient) {}

  // Before the first step.
  PYMLP_DEVICE void begin() const {
    for (int i = t.thread; i < l.parameters; i += t.threads) {
      parameters[i] = A(0);
      if (states > 0) first.set(i, A(0));
      if (states > 1) second.set(i, A(0));
      if (wants_norm) gradient.set(i, A(0));
    }
    // The last column of the input is 1: it multiplies the bias.
    for (int i = t.thread; i < l.input(); i += t.threads) {
      input[i] = A(i % l.row_k == l.K && i / l.row_k < l.z.B ? 1 : 0);
    }
    for (int i = t.thread; i < l.dlogits(); i += t.threads) dlogits[i] = A(0);
    for (int v = t.thread; v < l.z.V; v += t.threads) first_with[v] = -1;
    const int64_t done = *m.done;
    for (int64_t k = t.thread; k < m.steps; k += t.threads) {
      m.step_rates[k] = step_rates<A>(m.rule, m.rates[k], done + k + 1);
    }
    for (int i = t.thread; i < l.ids(); i += t.threads) even_ids[i] = id_of(i, row_of(0, i));
    t.barrier();  // all is zero, and the rates are there
    for_elements([&](int p, int i, int here) {
      parameters[here] = m.parameters[p][i];
      if (states > 0) first.set(here, m.first[p][i]);
      if (states > 1) second.set(here, m.second[p][i]);
    });
    t.barrier();  // parameters, state and the first ids
  }

  PYMLP_DEVICE void step(int64_t k) const {
    const bool odd = k % 2 != 0;
    const Shared<int32_t> now = odd ? odd_ids : even_ids, next = odd ? even_ids : odd_ids;
    // The next batch's ids are fetched while this one is computed: an index, then what it points
    // to.
    const bool fetches = k + 1 < m.steps && t.thread < l.ids();
    gather(now);
    t.barrier();  // input
    const int64_t row = fetches ? row_of(k + 1, t.thread) : 0;
    compute_hidden();
    t.barrier();  // hidden
    const int32_t id = fetches ? id_of(t.thread, row) : 0;
    compute_logits();
    if (fetches) next[t.thread] = id;
    if (k + 1 < m.steps) {
      for (int i = t.thread + t.threads; i < l.ids(); i += t.threads) {
        next[i] = id_of(i, row_of(k + 1, i));
      }
    }
    t.barrier();  // parts of the logits; the next ids
    for (int b = t.warp; b < l.z.B; b += t.warps) softmax(now, b);
    t.barrier();  // dlogits, losses
    if (t.thread == t.threads - 1) m.losses[k] = mean_loss();
    compute_dhidden();
    t.barrier();  // dhidden; the output weight has been read
    update_output_weight(k);
    t.barrier();  // the hidden layer has been read
    link_tokens(now, int(k));
    compute_dinput();
    t.barrier();  // parts of dinput, links; the hidden weight has been read
    update_hidden_weight(k);
    update_embedding(k);
    t.barrier();  // all parameters, or all gradients
    if (wants_norm) clip_and_update(k);
  }

  // After the last step.
  PYMLP_DEVICE void end() const {
    for_elements([&](int p, int i, int here) {
      if (!m.trained[p]) return;
      m.parameters[p][i] = parameters[here];
      if (states > 0) m.first[p][i] = first.get(here);
      if (states > 1) m.second[p][i] = second.get(here);
    });
    if (t.thread == 0) *m.done_after = *m.done + m.steps;
  }

 private:
  template <class Body>
  PYMLP_DEVICE void for_elements(const Body& body) const {
    for (int p = 0; p < trained_arrays; ++p) {
      for (int i = t.thread; i < l.size(p); i += t.threads) body(p, i, l.place(p, i));
    }
  }

  // --- the batch: ids are tokens (B, T), then targets (B) ---------------------------------------

  // The example that id i of step k comes from.
  PYMLP_DEVICE int64_t row_of(int64_t k, int i) const {
    const int tokens = l.z.B * l.z.T;
    return id_at(m.indices, k * l.z.B + (i < tokens ? i / l.z.T : i - tokens));
  }

  PYMLP_DEVICE int32_t id_of(int i, int64_t row) const {
    if (row < 0 || row >= m.N) return -1;
    const int64_t id =
        i < l.z.B * l.z.T ? id_at(m.tokens, row * l.z.T + i % l.z.T) : id_at(m.targets, row);
    return id < 0 || id >= l.z.V ? -1 : int32_t(id);
  }

  PYMLP_DEVICE void gather(Shared<int32_t> now) const {
    for (int i = t.thread; i < l.z.B * l.K; i += t.threads) {
      const int b = i / l.K, k = i % l.K;
      const int32_t id = now[b * l.z.T + k / l.z.E];
      A x = not_a_number<A>();
      if (id >= 0) x = parameters[id * l.z.E + k % l.z.E];
      input[b * l.row_k + k] = x;
    }
  }

  // --- forward -----------------------------------------------------------------------------------

  using Rows = SharedFactor<A, false>;
  using Columns = SharedFactor<A, true>;

  PYMLP_DEVICE void compute_hidden() const {
    shared_product(t, Rows{input, 0, l.row_k}, Columns{parameters, l.hidden_weight, l.row_h},
                   l.rows, l.z.H + 1, l.K + 1, 1, [&](const auto& tile, int) {
#pragma unroll
                     for (int s = 0; s < tile.height; ++s) {
                       A x[4];
#pragma unroll
                       for (int c = 0; c < 4; ++c) {
                         x[c] = tile.j(c) == l.z.H ? A(1) : tanh_of(tile.sum[s][c]);
                       }
                       store_four(hidden, tile.i(s) * l.row_h + tile.j(0), x);
                     }
                   });
  }

  PYMLP_DEVICE void compute_logits() const {
    add_in_parts(Rows{hidden, 0, l.row_h}, Rows{parameters, l.output_weight, l.row_h}, l.z.V,
                 l.z.H + 1, l.logit_parts, dhidden, l.row_v);
  }

  // out (parts, rows, row) = the parts of a (rows, R) b (J, R)ᵀ.
  PYMLP_DEVICE void add_in_parts(const Rows& a, const Rows& b, int J, int R, int parts,
                                 Shared<A> out, int row) const {
    shared_product(t, a, b, l.rows, J, R, parts, [&](const auto& tile, int part) {
#pragma unroll
      for (int s = 0; s < tile.height; ++s) {
#pragma unroll
        for (int c = 0; c < tile.width; ++c) {
          out[(part * l.rows + tile.i(s)) * row + tile.j(c)] = tile.sum[s][c];
        }
      }
    });
  }

  // A warp a row: its loss, and its softmax less one at the target.
  PYMLP_DEVICE void softmax(Shared<int32_t> now, int b) const {
    const int32_t target = now[l.z.B * l.z.T + b];
    A largest = -infinity<A>(), at_target = not_a_number<A>();
    for (int v = t.lane; v < l.z.V; v += warp_size) {
      A logit = dhidden[b * l.row_v + v];
      for (int part = 1; part < l.logit_parts; ++part) {
        logit += A(dhidden[(part * l.rows + b) * l.row_v + v]);
      }
      dlogits[b * l.row_v + v] = logit;
      largest = logit > largest ? logit : largest;
      if (v == target) at_target = logit;
    }
    largest = lanes_max<warp_size>(t, largest);
    at_target = t.shuffle(at_target, target >= 0 ? target % warp_size : 0);
    A sum = 0;
    for (int v = t.lane; v < l.z.V; v += warp_size) {
      const A e = exp_of(A(dlogits[b * l.row_v + v]) - largest);
      dlogits[b * l.row_v + v] = e;
      sum += e;
    }
    sum = lanes_sum<warp_size>(t, sum);
    const A scale = target >= 0 ? A(1) / sum : not_a_number<A>();
    for (int v = t.lane; v < l.z.V; v += warp_size) {
      dlogits[b * l.row_v + v] = fused(A(dlogits[b * l.row_v + v]), scale, A(v == target ? -1 : 0));
    }
    if (t.lane == 0) {
      row_losses[b] =
          target >= 0 ? double(log_of(sum) + (largest - at_target)) : not_a_number<double>();
    }
  }

  PYMLP_DEVICE double mean_loss() const {
    double sum = 0;
    for (int b = 0; b < l.z.B; ++b) sum += double(row_losses[b]);
    return double(A(sum / l.z.B));
  }

  // --- backward ----------------------------------------------------------------------------------

  // Up to tanh's input. The column of the bias becomes 0, as its hidden unit is 1.
  PYMLP_DEVICE void compute_dhidden() const {
    shared_product(t, Rows{dlogits, 0, l.row_v}, Columns{parameters, l.output_weight, l.row_h},
                   l.rows, l.z.H + 1, l.z.V, 1, [&](const auto& tile, int) {
#pragma unroll
                     for (int s = 0; s < tile.height; ++s) {
                       const int at = tile.i(s) * l.row_h + tile.j(0);
                       A x[4];
                       load_four(hidden, at, x);
#pragma unroll
                       for (int c = 0; c < 4; ++c) x[c] = tile.sum[s][c] * fused(-x[c], x[c], A(1));
                       store_four(dhidden, at, x);
                     }
                   });
  }

  PYMLP_DEVICE void update_output_weight(int64_t k) const {
    const UpdateRule<A> rule = rule_of(k, A(1));
    shared_product(t, Columns{dlogits, 0, l.row_v}, Columns{hidden, 0, l.row_h}, l.z.V, l.z.H + 1,
                   l.z.B, 1, [&](const auto& tile, int) {
                     update_rows(rule, tile, l.output_weight,
                                 [&](int v, int h) { return l.owner_in_output(v, h); });
                   });
  }

  PYMLP_DEVICE void update_hidden_weight(int64_t k) const {
    const UpdateRule<A> rule = rule_of(k, A(1));
    shared_product(t, Columns{input, 0, l.row_k}, Columns{dhidden, 0, l.row_h}, l.K + 1, l.z.H,
                   l.z.B, 1, [&](const auto& tile, int) {
                     update_rows(rule, tile, l.hidden_weight,
                                 [&](int k, int h) { return l.owner_in_hidden(k, h); });
                   });
  }

  PYMLP_DEVICE void compute_dinput() const {
    add_in_parts(Rows{dhidden, 0, l.row_h}, Rows{parameters, l.hidden_weight, l.row_h}, l.K, l.z.H,
                 l.input_parts, hidden, l.row_k);
  }

  // For the embedding: where each token of the batch is first, and for each place the next one with
  // the same token. By the last threads: the first ones have the tiles of dinput.
  PYMLP_DEVICE void link_tokens(Shared<int32_t> now, int k) const {
    const int count = l.z.B * l.z.T;
    for (int i = t.threads - 1 - t.thread; i < count; i += t.threads) {
      const int32_t id = now[i];
      int next = -1;
      bool is_first = true;
      for (int j = 0; j < count; ++j) {
        const int32_t other = now[j];
        if (other != id) continue;
        if (j < i) is_first = false;
        if (j > i && next < 0) next = j;
      }
      next_with[i] = next;
      // Numbers of earlier steps are smaller than any of this one: nobody has to take them away.
      if (is_first && id >= 0) first_with[id] = k * count + i;
    }
  }

  PYMLP_DEVICE void update_embedding(int64_t step) const {
    const UpdateRule<A> rule = rule_of(step, A(1));
    const int count = l.z.B * l.z.T, E = l.z.E, k = int(step);
    for (int n = t.threads - 1 - t.thread; n < l.z.V * E; n += t.threads) {
      A sum = 0;
      // Negative if the token is not in this batch: its number is of an earlier step.
      const int begin = int32_t(first_with[n / E]) - k * count;
      for (int i = begin; i >= 0; i = int32_t(next_with[i])) {
        const int at = i / l.z.T * l.row_k + i % l.z.T * E + n % E;
        A dinput = 0;
        for (int part = 0; part < l.input_parts; ++part) {
          dinput += A(hidden[part * l.rows * l.row_k + at]);
        }
        sum += dinput;
      }
      if (!m.trained[0]) continue;
      if (wants_norm) {
        gradient.set(n, sum);
      } else {
        A p = parameters[n];
        A u = states > 0 ? first.get(n) : A(0), w = states > 1 ? second.get(n) : A(0);
        update(rule, sum, p, u, w);
        parameters[n] = p;
        if (states > 0) first.set(n, u);
        if (states > 1) second.set(n, w);
      }
    }
  }

  // --- update ------------------------------------------------------------------------------------

  // Made where it is used: kept through a step it would take registers from the products. The mean
  // over the batch is its factor.
  PYMLP_DEVICE UpdateRule<A> rule_of(int64_t k, A scale) const {
    return UpdateRule<A>(m.rule, m.step_rates[k], scale / A(l.z.B));
  }

  PYMLP_DEVICE void update(const UpdateRule<A>& rule, A g, A& p, A& u, A& w) const {
    if (rule.adamw) {
      rule.adamw_step(g, p, u, w);
    } else {
      rule.sgd(g, p, states > 0 ? &u : nullptr);
    }
  }

  // Keeps a tile of a weight's gradient if the norm is wanted, else updates its parameters.
  // owner(i, j): the parameter, or -1.
  template <class Tile, class Owner>
  PYMLP_DEVICE void update_rows(const UpdateRule<A>& rule, const Tile& tile, int begin,
                                const Owner& owner) const {
    bool wanted[4];
#pragma unroll
    for (int s = 0; s < tile.height; ++s) {
      const int i = tile.i(s), at = begin + i * l.row_h + tile.j(0);
      if (owner(i, 0) < 0) break;  // beyond the last row
#pragma unroll
      for (int c = 0; c < 4; ++c) wanted[c] = is_trained(owner(i, tile.j(c)));
      if (wants_norm) {
        A g[4];
#pragma unroll
        for (int c = 0; c < 4; ++c) g[c] = wanted[c] ? tile.sum[s][c] : A(0);
        gradient.store(at, g);
      } else {
        update_four(rule, at, tile.sum[s], wanted);
      }
    }
  }

  PYMLP_DEVICE bool is_trained(int owner) const { return owner >= 0 && m.trained[owner]; }

  PYMLP_DEVICE void update_four(const UpdateRule<A>& rule, int at, const A (&g)[4],
                                const bool (&wanted)[4]) const {
    A p[4], u[4] = {}, w[4] = {};
    load_four(parameters, at, p);
    if (states > 0) first.load(at, u);
    if (states > 1) second.load(at, w);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (wanted[c]) update(rule, g[c], p[c], u[c], w[c]);
    }
    store_four(parameters, at, p);
    if (states > 0) first.store(at, u);
    if (states > 1) second.store(at, w);
  }

  // The update from all gradients, which are kept: those of padding and frozen parameters are 0.
  PYMLP_DEVICE void clip_and_update(int64_t k) const {
    double squares = 0;
    for (int i = t.thread; i < l.parameters; i += t.threads) {
      const double g = double(gradient.get(i));
      squares += g * g;
    }
    const double norm = sqrt_of(block_sum(t, sums, squares)) / l.z.B;
    if (m.grad_norms && t.thread == 0) m.grad_norms[k] = norm;
    double scale = m.max_grad_norm > 0 ? m.max_grad_norm / (norm + 1e-6) : 1;
    if (scale > 1) scale = 1;  // nan stays nan
    const UpdateRule<A> rule = rule_of(k, A(scale));
    for (int at = 4 * t.thread; at < l.parameters; at += 4 * t.threads) {
      A g[4];
      gradient.load(at, g);
      bool wanted[4];
#pragma unroll
      for (int c = 0; c < 4; ++c) wanted[c] = is_trained(l.owner(at + c));
      update_four(rule, at, g, wanted);
    }
    t.barrier();  // all parameters
  }

  Thread& t;
  const TrainingModel<A>& m;
  const TrainingLayout l;
  const bool wants_norm;
  const int states;
  const Shared<A> parameters, input, hidden, dhidden, dlogits;
  const Shared<int32_t> even_ids, odd_ids;  // of even and odd steps
  const Shared<int32_t> first_with, next_with;
  const Shared<double> row_losses, sums;
  const Placed<A> first, second, gradient;
};

template <class A>
struct TrainModels {
  static constexpr int threads = 256;
  const TrainingModel<A>* models;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const TrainingModel<A>& model = models[t.block];
    if (model.steps == 0) return;
    const TrainingBlock<A> block(t, model);
    block.begin();
    for (int64_t k = 0; k < model.steps; ++k) block.step(k);
    block.end();
  }
};

}  // namespace cuda
}  // namespace pymlp
