// The different tokens of a text, numbered from 1 in the order in which they were first met.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pymlp::data {

// A hash table with linear probing; the spellings lie one after the other in one array.
class Spellings {
 public:
  // The number of `token`, a new one if it has not been met.
  // Throws std::length_error beyond 2^31 - 1 different tokens.
  int32_t number(std::string_view token);

  size_t size() const { return ends_.size() - 1; }
  // The token with the number i + 1, until the next call of `number`.
  std::string_view operator[](size_t i) const {
    return std::string_view(text_).substr(ends_[i], ends_[i + 1] - ends_[i]);
  }

 private:
  // A number, 0 where the slot is free, and the upper half of its token's hash.
  struct Slot {
    int32_t number = 0;
    uint32_t hash = 0;
  };

  int32_t add(std::string_view token);
  void grow();

  std::string text_;
  std::vector<size_t> ends_ = {0};
  std::vector<Slot> slots_ = std::vector<Slot>(1024);  // a power of two, at most half full
};

}  // namespace pymlp::data
