#include "engine/inference.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <stdexcept>

#include "kernels/dispatch.h"
#include "kernels/philox.h"

namespace pymlp {

namespace {

// Examples that are computed at once: enough to make the tables cheap, few enough for the caches.
constexpr int64_t rows_at_once = 4096;

// The same where all their logits are held.
int64_t sequences_at_once(int64_t V) {
  constexpr int64_t logits = int64_t(1) << 22, fewest = 64;
  return std::min(rows_at_once, std::max(fewest, logits / V));
}

template <class A>
EmbedLinearTanh<A> hidden_layer(const Model<A>& model, int64_t N, Ids tokens) {
  const int64_t V = model.sizes.V, T = model.sizes.T, E = model.sizes.E, H = model.sizes.H;
  return {N, T, V, E, H, tokens, model.parameters[0], model.parameters[1], model.parameters[2]};
}

template <class A>
const A* direct_weight(const Model<A>& model) {
  return model.sizes.direct ? model.parameters[5] : nullptr;
}

template <class A>
MlpLogits<A> output_layer(const Model<A>& model, int64_t N, Ids tokens) {
  return {hidden_layer(model, N, tokens), model.parameters[3], model.parameters[4],
          direct_weight(model)};
}

// body(n, count, their tokens, their targets) for examples [n, n + count) after each other, whose
// ids it has checked.
template <class A, class Body>
void for_batches(const Model<A>& model, int64_t N, const int64_t* tokens, const int64_t* targets,
                 const Body& body) {
  const int64_t V = model.sizes.V, T = model.sizes.T;
  for (int64_t n = 0; n < N; n += rows_at_once) {
    const int64_t count = std::min(rows_at_once, N - n);
    for (int64_t i = n * T; i < (n + count) * T; ++i) {
      if (outside(tokens[i], V)) throw_out_of_range("tokens", tokens[i], V);
    }
    for (int64_t i = n; i < n + count; ++i) {
      if (outside(targets[i], V)) throw_out_of_range("targets", targets[i], V);
    }
    body(n, count, Ids{tokens + n * T, true}, Ids{targets + n, true});
  }
}

// Sequences that advance together.
template <class A>
class Sampler {
 public:
  Sampler(const Model<A>& model, const SampleOptions& options, const Parallel& parallel)
      : model_(model), options_(options), parallel_(parallel), kernels_(active_kernels().of<A>()) {}

  // Sequences number [first, first + count).
  void draw(int64_t first, int64_t count, std::vector<int32_t>* sequences) {
    start(first, count, sequences);
    for (auto length = static_cast<int64_t>(options_.prefix.size());
         !numbers_.empty() && length < options_.max_length; ++length) {
      compute_logits();
      choose(length);
      advance(first, sequences);
    }
  }

 private:
  void start(int64_t first, int64_t count, std::vector<int32_t>* sequences) {
    const int64_t T = model_.sizes.T;
    std::vector<int32_t> context(static_cast<size_t>(T), 0);
    context.insert(context.end(), options_.prefix.begin(), options_.prefix.end());
    contexts_.clear();
    numbers_.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      numbers_[i] = first + i;
      contexts_.insert(contexts_.end(), context.end() - T, context.end());
      sequences[i] = options_.prefix;
    }
  }

  int64_t active() const { return static_cast<int64_t>(numbers_.size()); }

  void compute_logits() {
    const MlpLogits<A> problem = output_layer(model_, active(), Ids{contexts_.data(), false});
    logits_.resize(static_cast<size_t>(active() * model_.sizes.V));
    workspace_.reserve(kernels_.mlp_logits_workspace(problem));
    kernels_.mlp_logits(problem, logits_.data(), workspace_.get(), parallel_);
  }

  void choose(int64_t position) {
    const int64_t V = model_.sizes.V;
    chosen_.resize(numbers_.size());
    std::atomic<bool> improbable{false};
    parallel_.run({"choose", active(), 16 * V}, [&](int64_t begin, int64_t end) {
      std::vector<A> sorted;
      for (int64_t i = begin; i < end; ++i) {
        A* logits = logits_.data() + i * V;
        chosen_[i] =
            options_.temperature == 0
                ? likeliest(logits)
                : draw_token(logits, uniform(options_.seed, numbers_[i], position), sorted);
        if (chosen_[i] < 0) improbable = true;
      }
    });
    if (improbable) {
      throw std::domain_error(
          "sample: the model gives no probabilities: its logits are not finite");
    }
  }

  // The first of equals; -1 if the logits are not finite.
  int32_t likeliest(const A* logits) const {
    const A* const end = logits + model_.sizes.V;
    if (!std::all_of(logits, end, [](A x) { return std::isfinite(x); })) return -1;
    return static_cast<int32_t>(std::max_element(logits, end) - logits);
  }

  // The token whose part of [0, 1) holds u, or -1 if there are no probabilities; weights take the
  // place of the logits.
  int32_t draw_token(A* logits, double u, std::vector<A>& sorted) const {
    const int64_t V = model_.sizes.V;
    if (options_.top_k > 0 && options_.top_k < V) keep_likeliest(logits, sorted);
    const A largest = *std::max_element(logits, logits + V);
    const double inverse = 1 / options_.temperature;
    for (int64_t v = 0; v < V; ++v) {
      logits[v] = static_cast<A>((double(logits[v]) - double(largest)) * inverse);
    }
    kernels_.exp(V, logits, logits);
    double total = 0;
    for (int64_t v = 0; v < V; ++v) total += logits[v];
    if (!std::isfinite(total)) return -1;
    double left = u * total;
    int32_t last = 0;
    for (int64_t v = 0; v < V; ++v) {
      if (!(logits[v] > 0)) continue;
      last = static_cast<int32_t>(v);
      left -= logits[v];
      if (left < 0) break;
    }
    return last;
  }

  // All but the top_k largest become -inf.
  void keep_likeliest(A* logits, std::vector<A>& sorted) const {
    const int64_t V = model_.sizes.V;
    sorted.assign(logits, logits + V);
    const auto kth = sorted.begin() + (options_.top_k - 1);
    std::nth_element(sorted.begin(), kth, sorted.end(), std::greater<A>());
    const A least = *kth;
    int64_t equal =
        options_.top_k - std::count_if(sorted.begin(), kth, [least](A x) { return x > least; });
    for (int64_t v = 0; v < V; ++v) {
      const bool keep = logits[v] > least || (logits[v] == least && equal-- > 0);
      if (!keep) logits[v] = -static_cast<A>(INFINITY);
    }
  }

  // Appends the tokens, and goes on with the sequences that have not ended.
  void advance(int64_t first, std::vector<int32_t>* sequences) {
    const int64_t T = model_.sizes.T;
    size_t kept = 0;
    for (size_t i = 0; i < numbers_.size(); ++i) {
      if (chosen_[i] == 0) continue;
      sequences[numbers_[i] - first].push_back(chosen_[i]);
      const auto from = contexts_.begin() + i * T, to = contexts_.begin() + kept * T;
      std::copy(from + 1, from + T, to);
      to[T - 1] = chosen_[i];
      numbers_[kept++] = numbers_[i];
    }
    numbers_.resize(kept);
    contexts_.resize(kept * T);
  }

  const Model<A>& model_;
  const SampleOptions& options_;
  const Parallel& parallel_;
  const Kernels<A>& kernels_;
  std::vector<int64_t> numbers_;            // of the sequences that have not ended
  std::vector<int32_t> contexts_, chosen_;  // (active, T), (active)
  std::vector<A> logits_;                   // (active, V)
  Scratch workspace_;
};

}  // namespace

template <class A>
void token_losses(const Model<A>& model, int64_t N, const int64_t* tokens, const int64_t* targets,
                  A* losses, const Parallel& parallel) {
  const Kernels<A>& kernels = active_kernels().of<A>();
  Scratch workspace;
  for_batches(model, N, tokens, targets, [&](int64_t n, int64_t count, Ids contexts, Ids ids) {
    MlpCrossEntropy<A> problem{};
    problem.hidden = hidden_layer(model, count, contexts);
    problem.output.N = count;
    problem.output.H = model.sizes.H;
    problem.output.V = model.sizes.V;
    problem.output.weight = model.parameters[3];
    problem.output.bias = model.parameters[4];
    problem.output.target = ids;
    problem.output.options.reduction = Reduction::none;
    problem.direct = direct_weight(model);
    workspace.reserve(kernels.mlp_cross_entropy_workspace(problem, false));
    kernels.mlp_cross_entropy(problem, losses + n, nullptr, workspace.get(), parallel);
  });
}

template <class A>
void token_logits(const Model<A>& model, int64_t N, const int64_t* tokens, const int64_t* targets,
                  A* logits, const Parallel& parallel) {
  const Kernels<A>& kernels = active_kernels().of<A>();
  Scratch workspace;
  for_batches(model, N, tokens, targets, [&](int64_t n, int64_t count, Ids contexts, Ids ids) {
    const MlpLogits<A> problem = output_layer(model, count, contexts);
    workspace.reserve(kernels.mlp_target_logits_workspace(problem));
    kernels.mlp_target_logits(problem, ids, logits + n, workspace.get(), parallel);
  });
}

template <class A>
std::vector<std::vector<int32_t>> sample(const Model<A>& model, const SampleOptions& options,
                                         const Parallel& parallel) {
  for (int32_t id : options.prefix) {
    if (outside(id, model.sizes.V)) throw_out_of_range("the prefix", id, model.sizes.V);
  }
  std::vector<std::vector<int32_t>> sequences(static_cast<size_t>(options.count));
  Sampler<A> sampler(model, options, parallel);
  const int64_t at_once = sequences_at_once(model.sizes.V);
  for (int64_t first = 0; first < options.count; first += at_once) {
    const int64_t count = std::min(at_once, options.count - first);
    sampler.draw(first, count, sequences.data() + first);
  }
  return sequences;
}

template void token_losses(const Model<float>&, int64_t, const int64_t*, const int64_t*, float*,
                           const Parallel&);
template void token_losses(const Model<double>&, int64_t, const int64_t*, const int64_t*, double*,
                           const Parallel&);
template void token_logits(const Model<float>&, int64_t, const int64_t*, const int64_t*, float*,
                           const Parallel&);
template void token_logits(const Model<double>&, int64_t, const int64_t*, const int64_t*, double*,
                           const Parallel&);
template std::vector<std::vector<int32_t>> sample(const Model<float>&, const SampleOptions&,
                                                  const Parallel&);
template std::vector<std::vector<int32_t>> sample(const Model<double>&, const SampleOptions&,
                                                  const Parallel&);

}  // namespace pymlp
