// Text to training examples: characters to ids, ids to context windows. No torch, no Python.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace pymlp::data {

// Id 0 pads every context and ends every line.
inline constexpr int32_t kTerminator = 0;
// What `encode` writes for a character that has no id.
inline constexpr int32_t kUnknown = -1;

// Lines of token ids, one after the other. Line i is ids[starts[i]] to ids[starts[i + 1]];
// starts has one entry more than there are lines. Terminators are not stored.
struct EncodedLines {
  std::vector<int32_t> ids;
  std::vector<int64_t> starts;
};

// The distinct code points of UTF-8 text but '\n', ascending.
// Throws std::invalid_argument with the byte's position where the text is not valid UTF-8.
std::vector<char32_t> distinct_code_points(std::string_view text);

// Ids of the characters of UTF-8 text whose lines are separated (not ended) by '\n': n separators
// make n + 1 lines, any of which may be empty. code_points[i] has id i + 1; others get kUnknown.
// Throws std::invalid_argument with the byte's position where the text is not valid UTF-8.
EncodedLines encode(std::string_view text, const std::vector<char32_t>& code_points);

// Slides a window of T = block_size >= 1 ids over every line, as the lecture's build_dataset does.
// A line of n ids makes n + 1 examples: the last predicts kTerminator, and contexts start as
// kTerminator.
//   starts   (n_lines + 1), as in EncodedLines
//   tokens   (N, T) overwritten, where N = starts[n_lines] - starts[0] + n_lines
//   targets  (N,)   overwritten
void make_examples(const int32_t* ids, const int64_t* starts, int64_t n_lines, int64_t block_size,
                   int64_t* tokens, int64_t* targets);

}  // namespace pymlp::data
