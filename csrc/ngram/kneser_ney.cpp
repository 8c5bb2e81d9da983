#include "ngram/kneser_ney.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace pymlp::ngram {
namespace {

// For each n-gram, whether its first token is a boundary; n from 0 to `order`.
std::vector<bool> begins_line(const Counts& counts, int n) {
  if (n == 0) return {false};
  const Table& table = counts.level(n).table;
  const std::vector<bool> contexts = begins_line(counts, n - 1);
  std::vector<bool> begins(table.size());
  for (int64_t i = 0; i < table.size(); ++i) {
    begins[i] = n == 1 ? table.token(i) == kBoundary : contexts[table.context(i)];
  }
  return begins;
}

std::array<int64_t, 5> counts_of_counts(const std::vector<int32_t>& counts) {
  std::array<int64_t, 5> t{};
  for (const int32_t count : counts) {
    if (count < 5) ++t[count];
  }
  return t;
}

std::vector<double> logarithms(const std::vector<double>& values) {
  std::vector<double> logs(values.size());
  std::transform(values.begin(), values.end(), logs.begin(), [](double x) { return std::log(x); });
  return logs;
}

}  // namespace

Discounts discounts(const std::array<int64_t, 5>& t) {
  constexpr Discounts fallback{0, 0.5, 1, 1.5};
  if (t[1] == 0 || t[2] == 0 || t[3] == 0) return fallback;
  const double y = static_cast<double>(t[1]) / static_cast<double>(t[1] + 2 * t[2]);
  Discounts d{};
  for (int j = 1; j <= 3; ++j) {
    d[j] = j - (j + 1) * y * static_cast<double>(t[j + 1]) / static_cast<double>(t[j]);
    if (d[j] <= 0 || d[j] > j) return fallback;
  }
  return d;
}

KneserNey::KneserNey(std::shared_ptr<const Counts> counts)
    : counts_(std::move(counts)),
      discounts_(counts_->order() + 1),
      log_prob_(counts_->order() + 1),
      log_backoff_(counts_->order()) {
  std::vector<double> probs = {1.0 / counts_->vocab_size()};
  for (int n = 1; n <= counts_->order(); ++n) {
    probs = estimate(n, probs);
    log_prob_[n] = logarithms(probs);
  }
}

std::vector<int32_t> KneserNey::adjusted_counts(int n) const {
  const Level& level = counts_->level(n);
  if (n == counts_->order()) return level.count;
  std::vector<int32_t> adjusted = level.before;
  if (counts_->reset() && n > 1) {
    const std::vector<bool> begins = begins_line(*counts_, n);
    for (size_t i = 0; i < adjusted.size(); ++i) {
      if (begins[i]) adjusted[i] = level.count[i];
    }
  }
  return adjusted;
}

std::vector<double> KneserNey::estimate(int n, const std::vector<double>& lower) {
  const Level& level = counts_->level(n);
  const std::vector<int32_t> adjusted = adjusted_counts(n);
  const Discounts& d = discounts_[n] = discounts(counts_of_counts(adjusted));
  const auto discount = [&](int32_t count) { return d[std::min(count, 3)]; };

  const int64_t n_contexts = counts_->level(n - 1).table.size();
  std::vector<int64_t> total(n_contexts);
  std::vector<double> gamma(n_contexts);
  for (int64_t i = 0; i < level.table.size(); ++i) {
    const int32_t context = level.table.context(i);
    total[context] += adjusted[i];
    gamma[context] += discount(adjusted[i]);
  }
  for (int64_t i = 0; i < n_contexts; ++i) {
    gamma[i] = total[i] > 0 ? gamma[i] / static_cast<double>(total[i]) : 1.0;
  }

  log_backoff_[n - 1] = logarithms(gamma);

  std::vector<double> probs(level.table.size());
  for (int64_t i = 0; i < level.table.size(); ++i) {
    const int32_t context = level.table.context(i);
    const double kept = adjusted[i] - discount(adjusted[i]);
    const double own = kept > 0 ? kept / static_cast<double>(total[context]) : 0.0;
    probs[i] = own + gamma[context] * lower[level.suffix[i]];
  }
  return probs;
}

void KneserNey::log_probs(const int32_t* ids, int64_t begin, int64_t end, double* out) const {
  counts_->visit(ids, begin, end, [&](int64_t i, const Ending& context, const Ending& ending) {
    int n = ending.length;
    double backoff = 0;
    for (; ending.ngram[n] == kNone; --n) {
      if (context.ngram[n - 1] != kNone) backoff += log_backoff_[n - 1][context.ngram[n - 1]];
    }
    out[i - begin] = backoff + log_prob_[n][ending.ngram[n]];
  });
}

}  // namespace pymlp::ngram
