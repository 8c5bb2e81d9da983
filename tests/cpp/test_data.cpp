#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "check.h"
#include "data/characters.h"
#include "data/stream.h"
#include "data/utf8.h"

using pymlp::data::distinct_code_points;
using pymlp::data::encode;
using pymlp::data::kUnknown;
using pymlp::data::next_code_point;
using pymlp::data::TokenStream;
using pymlp::data::write_context;

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

TEST(encode_counts_ids_from_one_and_ends_lines_with_boundaries) {
  CHECK(encode("ab\n\n\xC3\xAB?a\n", {'a', 'b', 0xEB}) ==
        (std::vector<int32_t>{1, 2, 0, 0, 3, kUnknown, 1, 0, 0}));
}

TEST(encode_of_empty_text_is_one_empty_line) {
  CHECK(encode("", {'a'}) == (std::vector<int32_t>{0}));
}

TEST(code_points_just_above_the_table) {
  CHECK(encode("\xC2\x80", {'a'}) == (std::vector<int32_t>{kUnknown, 0}));
  CHECK(distinct_code_points("\xC2\x80") == (std::vector<char32_t>{0x80}));
}

TEST(encode_meets_code_points_above_the_table) {
  CHECK(encode("\xF0\x9F\x98\x80", {'a'}) == (std::vector<int32_t>{kUnknown, 0}));
}

namespace {

// On arrays of exactly their size, for the sanitizers.
std::vector<int32_t> context(const std::vector<int32_t>& ids, bool reset, int64_t position,
                             int64_t T) {
  std::vector<int32_t> found(T, -9);
  write_context(TokenStream{ids.data(), reset}, position, T, found.data());
  return found;
}

}  // namespace

TEST(contexts_end_at_the_boundary_where_they_are_reset) {
  const std::vector<int32_t> ids = {5, 6, 0, 7, 8, 0, 0, 9};
  using Context = std::vector<int32_t>;
  CHECK(context(ids, true, 0, 3) == (Context{0, 0, 0}));
  CHECK(context(ids, true, 2, 3) == (Context{0, 5, 6}));
  CHECK(context(ids, true, 3, 3) == (Context{0, 0, 0}));  // begins a line
  CHECK(context(ids, true, 5, 3) == (Context{0, 7, 8}));  // predicts its end
  CHECK(context(ids, true, 7, 3) == (Context{0, 0, 0}));
  CHECK(context(ids, true, 5, 1) == (Context{8}));
}

TEST(contexts_run_on_across_lines) {
  const std::vector<int32_t> ids = {5, 6, 0, 7, 8, 0, 0, 9};
  using Context = std::vector<int32_t>;
  CHECK(context(ids, false, 0, 3) == (Context{0, 0, 0}));
  CHECK(context(ids, false, 2, 3) == (Context{0, 5, 6}));
  CHECK(context(ids, false, 5, 4) == (Context{6, 0, 7, 8}));
  CHECK(context(ids, false, 7, 3) == (Context{8, 0, 0}));
  CHECK(context(ids, false, 2, 9) == (Context{0, 0, 0, 0, 0, 0, 0, 5, 6}));
}
