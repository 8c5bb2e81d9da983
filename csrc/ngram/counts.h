// Counts of the n-grams of a token stream, for all orders up to a largest. No torch, no Python.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "ngram/table.h"

namespace pymlp::ngram {

// Id 0 stands between lines, and before the stream.
inline constexpr int32_t kBoundary = 0;
inline constexpr int kMaxOrder = 16;

// The n-grams of one order. Every vector has an entry for each of them.
struct Level {
  Table table;                   // of unigrams all of the vocabulary, numbered by their ids
  std::vector<int32_t> suffix;   // number of its last n - 1 tokens among the (n - 1)-grams
  std::vector<int32_t> count;    // occurrences in the stream
  std::vector<int32_t> before;   // distinct tokens met before it; not for the largest order
  std::vector<int32_t> after;    // occurrences as a context of a token; not for the largest order
  std::vector<int32_t> follows;  // distinct tokens met after it; not for the largest order
};

// The n-grams of each order that end at one place: ngram[n] is the number of that of order n, or
// kNone; ngram[0] = 0 is the empty one. `length` is the largest n that there is to be known: with
// `reset`, no n-gram has a boundary but at its ends.
struct Ending {
  int length = 0;
  std::array<int32_t, kMaxOrder + 1> ngram{};
};

// Counts of the windows of 1 to `order` tokens that end at each position of a stream.
//
// Positions before the stream read as boundaries. With `reset` a context does not look past a
// boundary: the windows that end at the i-th token of a line have at most i + 1 tokens, of which a
// boundary is the first. Windows of boundaries alone that lie before the stream are numbered, since
// they are contexts, and have count 0.
class Counts {
 public:
  // ids: (n_ids) from 0 to vocab_size - 1; n_ids and vocab_size from 1 up; 1 <= order <= kMaxOrder.
  Counts(const int32_t* ids, int64_t n_ids, int order, int32_t vocab_size, bool reset);

  int order() const { return order_; }
  int32_t vocab_size() const { return vocab_size_; }
  bool reset() const { return reset_; }
  // n from 0, for the empty n-gram, to order.
  const Level& level(int n) const { return levels_[n]; }

  // Calls visit(i, context, ending) for every position i from begin to end: with what ends before
  // it, context, and with it, ending. Positions before `begin` are read as contexts.
  template <class Visit>
  void visit(const int32_t* ids, int64_t begin, int64_t end, Visit&& visit) const;

  // For each position from begin to end and each n from 1 to order, (end - begin, order)
  // overwritten:
  //   ngrams    occurrences of the n-gram that ends there
  //   contexts  occurrences of its first n - 1 tokens as a context
  //   follows   distinct tokens that were met after that context
  // 0 for what was not met. Where a context stops at a boundary, longer ones are the same.
  void look_up(const int32_t* ids, int64_t begin, int64_t end, int32_t* ngrams, int32_t* contexts,
               int32_t* follows) const;

 private:
  // The n-grams that end with `token` after `context`; number(n, context, token) finds or makes
  // one.
  template <class Number>
  Ending extended(const Ending& context, int32_t token, Number&& number) const;
  // The same as the context of what comes next.
  Ending as_context(Ending ending, int32_t token) const;
  // The context of a stream's first position.
  template <class Number>
  Ending start(Number&& number) const;

  void count(const int32_t* ids, int64_t n_ids);
  void count_contexts();

  int order_;
  int32_t vocab_size_;
  bool reset_;
  std::vector<Level> levels_;
};

template <class Number>
Ending Counts::extended(const Ending& context, int32_t token, Number&& number) const {
  Ending ending;
  ending.length = context.length + 1;
  for (int n = 1; n <= ending.length; ++n) {
    const int32_t prefix = context.ngram[n - 1];
    ending.ngram[n] = prefix == kNone ? kNone : number(n, prefix, token, ending.ngram[n - 1]);
  }
  return ending;
}

inline Ending Counts::as_context(Ending ending, int32_t token) const {
  const int longest = reset_ && token == kBoundary ? 1 : order_ - 1;
  ending.length = std::min({ending.length, longest, order_ - 1});
  return ending;
}

template <class Number>
Ending Counts::start(Number&& number) const {
  Ending context;
  const int padding = reset_ ? std::min(1, order_ - 1) : order_ - 1;
  for (int i = 0; i < padding; ++i) {
    context = as_context(extended(context, kBoundary, number), kBoundary);
  }
  return context;
}

template <class Visit>
void Counts::visit(const int32_t* ids, int64_t begin, int64_t end, Visit&& visit) const {
  const auto number = [&](int n, int32_t context, int32_t token, int32_t /*suffix*/) {
    return levels_[n].table.find(context, token);
  };
  const int64_t first = std::max<int64_t>(begin - (order_ - 1), 0);
  Ending context = first == 0 ? start(number) : Ending{};
  for (int64_t i = first; i < end; ++i) {
    const Ending ending = extended(context, ids[i], number);
    if (i >= begin) visit(i, context, ending);
    context = as_context(ending, ids[i]);
  }
}

}  // namespace pymlp::ngram
