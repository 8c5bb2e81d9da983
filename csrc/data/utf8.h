// Reading UTF-8 (RFC 3629), one code point at a time, never past the end.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pymlp::data {

// Reads the code point that starts at text[position] and moves position behind it.
// Throws std::invalid_argument for bytes that are not UTF-8: a stray or missing continuation byte,
// an overlong form, a surrogate, a value above U+10FFFF.
inline char32_t next_code_point(std::string_view text, size_t& position) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(position);
  if (first < 0x80) {
    ++position;
    return first;
  }
  // A lead byte 110xxxxx, 1110xxxx or 11110xxx says how many bytes follow; each adds six bits.
  // `least` is the smallest value that needs that many.
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  const char32_t least = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80;
  char32_t value = first & (0x7F >> length);
  bool valid = first >= 0xC2 && first <= 0xF4 && length <= text.size() - position;
  for (size_t i = 1; valid && i < length; ++i) {
    valid = (byte(position + i) & 0xC0) == 0x80;
    value = (value << 6) | (byte(position + i) & 0x3F);
  }
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  if (!valid || value < least || value > 0x10FFFF || surrogate) {
    throw std::invalid_argument("text is not valid UTF-8 at byte " + std::to_string(position));
  }
  position += length;
  return value;
}

}  // namespace pymlp::data
