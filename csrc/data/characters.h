// Characters of UTF-8 text to token ids. No torch, no Python.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "data/stream.h"

namespace pymlp::data {

// The value that `encode` writes for a character without an id.
inline constexpr int32_t kUnknown = -1;

// The distinct code points of UTF-8 text but '\n', ascending.
// Throws std::invalid_argument with the byte's position where the text is not valid UTF-8.
std::vector<char32_t> distinct_code_points(std::string_view text);

// Ids of the characters of UTF-8 text whose lines are separated (not ended) by '\n', as a stream: n
// separators make n + 1 lines, any of which may be empty, and kBoundary comes after each of them.
// code_points[i] has id i + 1; others get kUnknown.
// Throws std::invalid_argument with the byte's position where the text is not valid UTF-8.
std::vector<int32_t> encode(std::string_view text, const std::vector<char32_t>& code_points);

}  // namespace pymlp::data
