// Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, section 4.1).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "ngram/counts.h"

namespace pymlp::ngram {

// The amounts taken from counts 1, 2 and from 3 up, at [1] to [3]; [0] = 0.
using Discounts = std::array<double, 4>;

// The discounts of one order from the numbers of n-grams of (adjusted) count 1 to 4, at [1] to [4]:
// D_j = j - (j + 1) Y t_{j+1} / t_j with Y = t_1 / (t_1 + 2 t_2). Where one of t_1 to t_3 is 0, or
// some D_j is not in (0, j], as in tiny or unnatural texts: 0.5, 1, 1.5.
Discounts discounts(const std::array<int64_t, 5>& counts_of_counts);

// p(w | h) = max(c(hw) - D(c(hw)), 0) / c(h) + gamma(h) p(w | h without its first token), where
// gamma(h) makes it sum to one, and c counts occurrences for the largest order and for n-grams that
// begin a line (which have nothing before them, with `reset`), and for others distinct tokens
// before them. Under the unigrams lies the uniform distribution.
class KneserNey {
 public:
  explicit KneserNey(std::shared_ptr<const Counts> counts);

  const Counts& counts() const { return *counts_; }
  // n from 1 to order.
  const Discounts& discounts_of(int n) const { return discounts_[n]; }
  // log p of each n-gram's last token after the others; n from 1 to order.
  const std::vector<double>& log_probs_of(int n) const { return log_prob_[n]; }
  // log gamma of each n-gram as a context, 0 where nothing follows it; n from 0 to order - 1.
  const std::vector<double>& log_backoffs_of(int n) const { return log_backoff_[n]; }

  // log p of every position from begin to end, in nats: (end - begin) overwritten.
  void log_probs(const int32_t* ids, int64_t begin, int64_t end, double* out) const;

 private:
  std::vector<int32_t> adjusted_counts(int n) const;
  // Probabilities of the n-grams from those of the (n - 1)-grams; sets discounts and backoffs.
  std::vector<double> estimate(int n, const std::vector<double>& lower);

  std::shared_ptr<const Counts> counts_;
  std::vector<Discounts> discounts_;
  std::vector<std::vector<double>> log_prob_, log_backoff_;
};

}  // namespace pymlp::ngram
