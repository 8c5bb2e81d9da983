#include "engine/candidates.h"

#include <algorithm>
#include <cmath>

#include "kernels/philox.h"

namespace pymlp {

namespace {

// Mikolov et al. (2013) found it better than 1 and 0.
constexpr double power = 0.75;
// Sets the noise apart from what else is drawn by the same seed.
constexpr uint64_t stream = 0x9E3779B97F4A7C15;

}  // namespace

Candidates::Candidates(const int64_t* counts, int64_t V, int64_t noise, int64_t batch_size,
                       uint64_t seed)
    : noise_(noise),
      batch_size_(batch_size),
      seed_(seed ^ stream),
      draws_(static_cast<size_t>(V)),
      words_(static_cast<size_t>(std::min(V, noise + batch_size))),
      places_(static_cast<size_t>(batch_size)),
      offsets_(words_.size()) {
  const auto count_of = [counts](int64_t v) {
    return static_cast<double>(std::max(counts[v], int64_t(1)));
  };
  double total = 0, sum = 0;
  for (int64_t v = 0; v < V; ++v) {
    total += count_of(v);
    sum += std::pow(count_of(v), power);
    below_.push_back(sum);
  }
  for (int64_t v = 0; v < V; ++v) {
    expected_.push_back(static_cast<double>(noise) * std::pow(count_of(v), power) / sum +
                        static_cast<double>(batch_size) * count_of(v) / total);
  }
}

void Candidates::draw(int64_t step, Ids targets) {
  count_ = 0;
  for (int64_t i = 0; i < noise_; ++i) {
    const double at = uniform(seed_, step, i) * below_.back();
    const auto found = std::upper_bound(below_.begin(), below_.end() - 1, at);
    count_word(found - below_.begin());
  }
  for (int64_t b = 0; b < batch_size_; ++b) count_word(targets[b]);
  const auto end = words_.begin() + count_;
  std::sort(words_.begin(), end);
  for (size_t r = 0; r < static_cast<size_t>(count_); ++r) {
    const auto word = static_cast<size_t>(words_[r]);
    offsets_[r] = std::log(draws_[word] / expected_[word]);
    draws_[word] = static_cast<int32_t>(r);  // until the targets have found their places
  }
  for (int64_t b = 0; b < batch_size_; ++b) {
    places_[static_cast<size_t>(b)] = draws_[static_cast<size_t>(targets[b])];
  }
  std::for_each(words_.begin(), end,
                [this](int32_t word) { draws_[static_cast<size_t>(word)] = 0; });
}

double Candidates::mean_offset() const {
  double sum = 0;
  for (const int32_t place : places_) sum += offsets_[static_cast<size_t>(place)];
  return sum / static_cast<double>(batch_size_);
}

void Candidates::count_word(int64_t word) {
  if (draws_[static_cast<size_t>(word)]++ > 0) return;
  words_[static_cast<size_t>(count_++)] = static_cast<int32_t>(word);
}

}  // namespace pymlp
