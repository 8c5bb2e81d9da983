// Use of a trained model: losses of given examples, and new sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model.h"
#include "kernels/kernels.h"

namespace pymlp {

template <class A>
struct Model {
  ModelSizes sizes;
  const A* parameters[most_parameters];
};

// losses[n] = -log p(targets[n] | tokens[n]) for tokens (N, T), targets (N), losses (N).
// std::out_of_range: for an id that is not in [0, V).
template <class A>
void token_losses(const Model<A>& model, int64_t N, const int64_t* tokens, const int64_t* targets,
                  A* losses, const Parallel& parallel);

// logits[n]: that of targets[n] after tokens[n], log p(targets[n] | tokens[n]) but for the
// logarithm of the sum that the softmax divides by. Arguments and errors as for token_losses.
template <class A>
void token_logits(const Model<A>& model, int64_t N, const int64_t* tokens, const int64_t* targets,
                  A* logits, const Parallel& parallel);

struct SampleOptions {
  int64_t count = 1;            // sequences
  std::vector<int32_t> prefix;  // what each begins with
  int64_t max_length = 100;     // of a sequence, the prefix included
  double temperature = 1;       // divides the logits; 0: the likeliest token, the first of equals
  int64_t top_k = 0;            // > 0: draw from the k likeliest, the first of equals
  uint64_t seed = 0;
};

// Sequences without the id 0 that ends them. A draw depends on the seed, the number of the sequence
// and the position alone (Philox 4x32-10: Salmon et al. 2011), not on what is computed together.
// std::domain_error: the model's logits are not finite.
template <class A>
std::vector<std::vector<int32_t>> sample(const Model<A>& model, const SampleOptions& options,
                                         const Parallel& parallel);

}  // namespace pymlp
