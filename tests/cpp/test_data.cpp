#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "check.h"
#include "data/examples.h"
#include "data/utf8.h"

using pymlp::data::distinct_code_points;
using pymlp::data::encode;
using pymlp::data::EncodedLines;
using pymlp::data::kUnknown;
using pymlp::data::make_examples;
using pymlp::data::next_code_point;

namespace {

// A copy of exactly its size on the heap: a sanitizer sees every byte read past the end.
bool is_utf8(std::string_view text) {
  const std::vector<char> exact(text.begin(), text.end());
  try {
    distinct_code_points({exact.data(), exact.size()});
    return true;
  } catch (const std::invalid_argument&) {
    return false;
  }
}

std::string utf8(char32_t c) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | (c >> 6)), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0 | (c >> 12)), tail(6), tail(0)};
  return {static_cast<char>(0xF0 | (c >> 18)), tail(12), tail(6), tail(0)};
}

}  // namespace

TEST(utf8_reads_every_code_point) {
  size_t wrong = 0;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    const std::string bytes = utf8(c);
    size_t position = 0;
    wrong += next_code_point(bytes, position) != c || position != bytes.size();
  }
  CHECK_EQ(wrong, 0u);
}

TEST(utf8_rejects_what_rfc_3629_forbids) {
  CHECK(is_utf8("zo\xC3\xAB \xE2\x82\xAC \xF0\x9F\x98\x80"));
  CHECK(!is_utf8("\x80"));  // stray continuation
  CHECK(!is_utf8("\xC3"));  // cut short
  CHECK(!is_utf8("\xE2\x82"));
  CHECK(!is_utf8("\xF0\x9F\x98"));
  CHECK(!is_utf8("\xC3z"));                             // no continuation
  CHECK(!is_utf8("\xC0\xAF") && !is_utf8("\xC1\xBF"));  // overlong
  CHECK(!is_utf8("\xE0\x9F\xBF") && !is_utf8("\xF0\x8F\xBF\xBF"));
  CHECK(!is_utf8("\xED\xA0\x80") && !is_utf8("\xED\xBF\xBF"));          // surrogates
  CHECK(!is_utf8("\xF4\x90\x80\x80") && !is_utf8("\xF5\x80\x80\x80"));  // above U+10FFFF
  CHECK(!is_utf8("\xFE") && !is_utf8("\xFF"));
}

TEST(utf8_error_names_the_byte) {
  try {
    encode("abc\xFFz", {});
    CHECK(false);
  } catch (const std::invalid_argument& error) {
    CHECK_EQ(std::string(error.what()), "text is not valid UTF-8 at byte 3");
  }
}

TEST(distinct_code_points_ascend_without_line_feeds) {
  CHECK(distinct_code_points("").empty());
  CHECK(distinct_code_points("b\n\xF0\x9F\x98\x80\xC3\xAB"
                             "ab\n") == (std::vector<char32_t>{'a', 'b', 0xEB, 0x1F600}));
}

TEST(encode_counts_ids_from_one_and_lines_between_separators) {
  const EncodedLines lines = encode("ab\n\n\xC3\xAB?a\n", {'a', 'b', 0xEB});
  CHECK(lines.ids == (std::vector<int32_t>{1, 2, 3, kUnknown, 1}));
  CHECK(lines.starts == (std::vector<int64_t>{0, 2, 2, 5, 5}));
}

TEST(encode_of_empty_text_is_one_empty_line) {
  const EncodedLines lines = encode("", {'a'});
  CHECK(lines.ids.empty());
  CHECK(lines.starts == (std::vector<int64_t>{0, 0}));
}

TEST(code_points_just_above_the_table) {
  CHECK(encode("\xC2\x80", {'a'}).ids == (std::vector<int32_t>{kUnknown}));
  CHECK(distinct_code_points("\xC2\x80") == (std::vector<char32_t>{0x80}));
}

TEST(encode_meets_code_points_above_the_table) {
  CHECK(encode("\xF0\x9F\x98\x80", {'a'}).ids == (std::vector<int32_t>{kUnknown}));
}

TEST(make_examples_pads_and_terminates_every_line) {
  const std::vector<int32_t> ids = {5, 6, 7, 8};
  const std::vector<int64_t> starts = {0, 3, 3, 4};
  std::vector<int64_t> tokens(7 * 2, -9), targets(7, -9);
  make_examples(ids.data(), starts.data(), 3, 2, tokens.data(), targets.data());
  CHECK(tokens == (std::vector<int64_t>{0, 0, 0, 5, 5, 6, 6, 7, 0, 0, 0, 0, 0, 8}));
  CHECK(targets == (std::vector<int64_t>{5, 6, 7, 0, 0, 8, 0}));
}

TEST(make_examples_of_a_block_longer_than_the_line) {
  const std::vector<int32_t> ids = {5};
  const std::vector<int64_t> starts = {0, 1};
  std::vector<int64_t> tokens(2 * 4, -9), targets(2, -9);
  make_examples(ids.data(), starts.data(), 1, 4, tokens.data(), targets.data());
  CHECK(tokens == (std::vector<int64_t>{0, 0, 0, 0, 0, 0, 0, 5}));
  CHECK(targets == (std::vector<int64_t>{5, 0}));
}
