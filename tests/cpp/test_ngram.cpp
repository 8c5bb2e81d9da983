#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "check.h"
#include "ngram/counts.h"
#include "ngram/kneser_ney.h"
#include "ngram/table.h"

using pymlp::ngram::Counts;
using pymlp::ngram::Discounts;
using pymlp::ngram::discounts;
using pymlp::ngram::KneserNey;
using pymlp::ngram::kNone;
using pymlp::ngram::Table;

namespace {

using Ids = std::vector<int32_t>;

// A stream with repetitions, from a linear congruential generator.
Ids stream(int64_t n, int32_t vocab_size) {
  Ids ids(n);
  uint32_t state = 1;
  for (int32_t& id : ids) {
    state = state * 1664525u + 1013904223u;
    id = static_cast<int32_t>((state >> 16) % static_cast<uint32_t>(vocab_size) * (state >> 31));
  }
  return ids;
}

std::shared_ptr<const Counts> count(const Ids& ids, int order, int32_t vocab_size, bool reset) {
  return std::make_shared<const Counts>(ids.data(), static_cast<int64_t>(ids.size()), order,
                                        vocab_size, reset);
}

}  // namespace

TEST(table_numbers_ngrams_as_they_come_and_keeps_them_as_it_grows) {
  Table table;
  for (int32_t i = 0; i < 5000; ++i) CHECK_EQ(table.insert(i / 7, INT32_MAX - i), i);
  for (int32_t i = 0; i < 5000; ++i) {
    CHECK_EQ(table.insert(i / 7, INT32_MAX - i), i);
    CHECK_EQ(table.find(i / 7, INT32_MAX - i), i);
    CHECK_EQ(table.context(i), i / 7);
    CHECK_EQ(table.token(i), INT32_MAX - i);
  }
  CHECK_EQ(table.find(715, 0), kNone);
  CHECK_EQ(table.size(), 5000);
}

TEST(discounts_of_literal_counts_of_counts) {
  const Discounts d = discounts({0, 100, 40, 20, 10});  // Y = 100 / 180
  CHECK_NEAR(d[1], 1 - 2 * (100 / 180.0) * 0.4, 1e-15);
  CHECK_NEAR(d[2], 2 - 3 * (100 / 180.0) * 0.5, 1e-15);
  CHECK_NEAR(d[3], 3 - 4 * (100 / 180.0) * 0.5, 1e-15);
  const Discounts fallback{0, 0.5, 1, 1.5};
  CHECK(discounts({0, 100, 40, 0, 10}) == fallback);
  CHECK(discounts({0, 100, 1, 90, 0}) == fallback);  // D2 would be below 0
}

TEST(counts_stop_at_boundaries_or_run_across_them) {
  const Ids ids{1, 2, 0, 1};
  CHECK_EQ(count(ids, 3, 3, true)->level(2).table.size(), 3);   // 0 1, 1 2, 2 0
  CHECK_EQ(count(ids, 3, 3, true)->level(3).table.size(), 2);   // 0 1 2, 1 2 0
  CHECK_EQ(count(ids, 3, 3, false)->level(3).table.size(), 4);  // 0 0 1, 2 0 1 too
  const auto running = count(ids, 3, 3, false);
  CHECK_EQ(running->level(2).table.size(), 4);  // 0 1, 1 2, 2 0, and 0 0, which is only a context
  const int32_t pair = running->level(2).table.find(0, 0);
  CHECK_EQ(running->level(2).count[pair], 0);
  CHECK_EQ(running->level(2).after[pair], 1);
}

TEST(kneser_ney_sums_to_one_at_every_position_of_a_stream) {
  constexpr int32_t V = 6;
  const Ids ids = stream(400, V);
  for (const bool reset : {true, false}) {
    for (const int order : {1, 2, 4}) {
      const KneserNey model(count(ids, order, V, reset));
      double worst = 0;
      for (int64_t i = 0; i < 60; ++i) {
        // A copy of exactly its size on the heap: a sanitizer sees every id read past the end.
        Ids prefix(ids.begin(), ids.begin() + i + 1);
        double sum = 0;
        for (prefix[i] = 0; prefix[i] < V; ++prefix[i]) {
          double log_prob = 0;
          model.log_probs(prefix.data(), i, i + 1, &log_prob);
          sum += std::exp(log_prob);
        }
        worst = std::max(worst, std::abs(sum - 1));
      }
      CHECK_NEAR(worst, 0, 1e-12);
    }
  }
}
