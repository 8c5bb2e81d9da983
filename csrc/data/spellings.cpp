#include "data/spellings.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace pymlp::data {

namespace {

// Eight bytes at a time, each mixed in by a multiplication whose upper half is folded down.
uint64_t hash_of(std::string_view token) {
  constexpr uint64_t odd = 0x9E3779B97F4A7C15u;
  uint64_t hash = token.size() * odd;
  for (size_t i = 0; i < token.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, token.data() + i, std::min<size_t>(8, token.size() - i));
    hash = (hash ^ word) * odd;
    hash ^= hash >> 32;
  }
  return hash * odd;
}

}  // namespace

int32_t Spellings::number(std::string_view token) {
  const uint64_t hash = hash_of(token);
  const auto upper = static_cast<uint32_t>(hash >> 32);
  const size_t mask = slots_.size() - 1;
  for (size_t at = upper & mask;; at = (at + 1) & mask) {
    const Slot slot = slots_[at];
    if (slot.number == 0) {
      slots_[at] = {add(token), upper};
      const int32_t number = slots_[at].number;
      if (2 * size() > slots_.size()) grow();
      return number;
    }
    if (slot.hash == upper && (*this)[static_cast<size_t>(slot.number) - 1] == token) {
      return slot.number;
    }
  }
}

int32_t Spellings::add(std::string_view token) {
  if (size() == static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    throw std::length_error("more than 2147483647 different tokens");
  }
  text_.append(token);
  ends_.push_back(text_.size());
  return static_cast<int32_t>(size());
}

void Spellings::grow() {
  std::vector<Slot> larger(2 * slots_.size());
  const size_t mask = larger.size() - 1;
  for (const Slot& slot : slots_) {
    if (slot.number == 0) continue;
    size_t at = slot.hash & mask;
    while (larger[at].number != 0) at = (at + 1) & mask;
    larger[at] = slot;
  }
  slots_.swap(larger);
}

}  // namespace pymlp::data
