// Numbers for the n-grams of one order: an open-addressing hash table from (context, token).
#pragma once

#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

namespace pymlp::ngram {

// No n-gram has this number.
inline constexpr int32_t kNone = -1;

// N-grams are numbered 0, 1, 2, ... as they are inserted. An n-gram is the number of its first n -
// 1 tokens, its context, among the (n - 1)-grams, and its last token; both from 0 up.
class Table {
 public:
  int64_t size() const { return static_cast<int64_t>(keys_.size()); }
  int32_t context(int64_t ngram) const { return static_cast<int32_t>(keys_[ngram] >> 32); }
  int32_t token(int64_t ngram) const { return static_cast<int32_t>(keys_[ngram]); }

  // The n-gram's number, or kNone.
  int32_t find(int32_t context, int32_t token) const {
    return slots_[slot_of(key_of(context, token))];
  }

  // The n-gram's number, which is the old size() for one that is new.
  // Throws std::length_error where there are more than numbers.
  int32_t insert(int32_t context, int32_t token) {
    const uint64_t key = key_of(context, token);
    size_t slot = slot_of(key);
    if (slots_[slot] != kNone) return slots_[slot];
    if (keys_.size() == INT32_MAX) throw std::length_error("more than 2^31 - 1 distinct n-grams");
    if (2 * (keys_.size() + 1) > slots_.size()) {
      grow();
      slot = slot_of(key);
    }
    slots_[slot] = static_cast<int32_t>(keys_.size());
    keys_.push_back(key);
    return slots_[slot];
  }

 private:
  static uint64_t key_of(int32_t context, int32_t token) {
    return static_cast<uint64_t>(context) << 32 | static_cast<uint32_t>(token);
  }

  // The slot of the key, or the one where it would be put. Half of the slots are free, so the
  // search ends.
  size_t slot_of(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    size_t slot = mixed(key) & mask;
    while (slots_[slot] != kNone && keys_[slots_[slot]] != key) slot = (slot + 1) & mask;
    return slot;
  }

  // All bits of the key reach the low bits (the finaliser of SplitMix64).
  static uint64_t mixed(uint64_t key) {
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9u;
    key = (key ^ (key >> 27)) * 0x94D049BB133111EBu;
    return key ^ (key >> 31);
  }

  void grow() {
    slots_.assign(2 * slots_.size(), kNone);
    for (size_t i = 0; i < keys_.size(); ++i) slots_[slot_of(keys_[i])] = static_cast<int32_t>(i);
  }

  std::vector<uint64_t> keys_;
  std::vector<int32_t> slots_ = std::vector<int32_t>(16, kNone);  // a power of two
};

}  // namespace pymlp::ngram
