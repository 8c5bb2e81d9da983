#include "ngram/counts.h"

namespace pymlp::ngram {

Counts::Counts(const int32_t* ids, int64_t n_ids, int order, int32_t vocab_size, bool reset)
    : order_(order), vocab_size_(vocab_size), reset_(reset), levels_(order + 1) {
  count(ids, n_ids);
  count_contexts();
}

void Counts::count(const int32_t* ids, int64_t n_ids) {
  const auto number = [&](int n, int32_t context, int32_t token, int32_t suffix) {
    Level& level = levels_[n];
    const int32_t ngram = level.table.insert(context, token);
    if (ngram == static_cast<int64_t>(level.count.size())) {
      level.suffix.push_back(suffix);
      level.count.push_back(0);
      if (n < order_) level.before.push_back(0);
    }
    return ngram;
  };
  levels_[0].table.insert(0, 0);
  levels_[0].before.push_back(0);
  for (int32_t token = 0; token < vocab_size_; ++token) number(1, 0, token, 0);

  Ending context = start(number);
  for (int64_t i = 0; i < n_ids; ++i) {
    const Ending ending = extended(context, ids[i], number);
    for (int n = 1; n <= ending.length; ++n) {
      // The first time that an n-gram is met, its suffix is met after another token.
      if (levels_[n].count[ending.ngram[n]]++ == 0) ++levels_[n - 1].before[ending.ngram[n - 1]];
    }
    context = as_context(ending, ids[i]);
  }
}

void Counts::count_contexts() {
  for (int n = 1; n <= order_; ++n) {
    const Level& level = levels_[n];
    Level& contexts = levels_[n - 1];
    contexts.after.assign(contexts.table.size(), 0);
    contexts.follows.assign(contexts.table.size(), 0);
    for (int64_t i = 0; i < level.table.size(); ++i) {
      const int32_t context = level.table.context(i);
      contexts.after[context] += level.count[i];
      contexts.follows[context] += level.count[i] > 0;
    }
  }
}

void Counts::look_up(const int32_t* ids, int64_t begin, int64_t end, int32_t* ngrams,
                     int32_t* contexts, int32_t* follows) const {
  visit(ids, begin, end, [&](int64_t i, const Ending& context, const Ending& ending) {
    for (int n = 1; n <= order_; ++n) {
      const int known = std::min(n, ending.length);
      const int32_t ngram = ending.ngram[known];
      const int32_t prefix = context.ngram[known - 1];
      const int64_t at = (i - begin) * order_ + n - 1;
      ngrams[at] = ngram == kNone ? 0 : levels_[known].count[ngram];
      contexts[at] = prefix == kNone ? 0 : levels_[known - 1].after[prefix];
      follows[at] = prefix == kNone ? 0 : levels_[known - 1].follows[prefix];
    }
  });
}

}  // namespace pymlp::ngram
