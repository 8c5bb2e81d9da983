// The words that a step of the sampled softmax compares, in place of the whole vocabulary.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace pymlp {

// The targets of a batch and words of noise, drawn with replacement from the unigram distribution
// to the power 3/4, words that never occur counted once. With each candidate goes the logarithm of
// how often it is among all these draws over how often that is expected. Added to its logit, it
// makes the softmax of the candidates that of which draw is the target (Jean et al., 2015).
class Candidates {
 public:
  // counts (V): occurrences among the targets that batches are drawn from. noise: words a step.
  Candidates(const int64_t* counts, int64_t V, int64_t noise, int64_t batch_size, uint64_t seed);

  // Draws the candidates of step number `step`. They depend only on the step, the seed and the
  // targets (B), each in [0, V).
  void draw(int64_t step, Ids targets);

  int64_t vocab_size() const { return static_cast<int64_t>(draws_.size()); }
  int64_t batch_size() const { return batch_size_; }
  int64_t most() const { return static_cast<int64_t>(words_.size()); }  // that there can be
  int64_t count() const { return count_; }
  const int32_t* words() const { return words_.data(); }     // (count), ascending
  const double* offsets() const { return offsets_.data(); }  // (count)
  Ids places() const { return {places_.data(), false}; }     // (B): of the targets among words
  // The mean of the targets' offsets, which the cross-entropy of the candidates leaves out.
  double mean_offset() const;

 private:
  void count_word(int64_t word);

  int64_t noise_, batch_size_, count_ = 0;
  uint64_t seed_;
  std::vector<double> below_;     // (V): shares of the noise, added up
  std::vector<double> expected_;  // (V): draws of each word in a step
  std::vector<int32_t> draws_;    // (V): so far; 0 between steps
  std::vector<int32_t> words_, places_;
  std::vector<double> offsets_;
};

}  // namespace pymlp
