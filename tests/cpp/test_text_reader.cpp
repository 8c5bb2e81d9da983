// Text to streams of tokens, in blocks on the heap of exactly their size, for the sanitizers.
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "check.h"
#include "data/find_lines.h"
#include "data/spellings.h"
#include "data/text_reader.h"

using pymlp::data::find_lines;
using pymlp::data::Spellings;
using pymlp::data::TextReader;
using pymlp::data::TokenKind;

namespace {

using Ids = std::vector<int32_t>;

Ids read(TextReader& reader, std::string_view text, size_t block) {
  Ids ids;
  for (size_t at = 0; at < text.size(); at += block) {
    const std::string_view part = text.substr(at, block);
    const std::vector<char> exact(part.begin(), part.end());
    reader.feed({exact.data(), exact.size()}, ids);
  }
  reader.finish(ids);
  return ids;
}

std::string error_of(TokenKind kind, std::string_view text, size_t block) {
  TextReader reader(kind);
  try {
    read(reader, text, block);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST(spellings_number_a_hundred_thousand_tokens_as_they_come) {
  Spellings spellings;
  size_t wrong = 0;
  for (int repeat = 0; repeat < 2; ++repeat) {
    for (int i = 0; i < 100000; ++i) wrong += spellings.number(std::to_string(i)) != i + 1;
  }
  CHECK_EQ(wrong, 0u);
  CHECK_EQ(spellings.size(), 100000u);
  CHECK(spellings[41] == "41");
  CHECK_EQ(spellings.number(""), 100001);
  CHECK_EQ(spellings.number(std::string_view("\0", 1)), 100002);  // not the same as ""
}

TEST(words_of_a_text_in_blocks_of_any_size) {
  for (size_t block : {1, 2, 3, 5, 64}) {
    TextReader reader(TokenKind::words);
    const Ids ids = read(reader, "\xEF\xBB\xBF  the cat\r\n\n \t\nthe\xC2\xA0zo\xC3\xAB", block);
    CHECK(ids == (Ids{1, 2, 0, 1, 3, 0}));
    CHECK(reader.spellings()[2] == "zo\xC3\xAB");
    CHECK_EQ(reader.n_lines(), 2);
    CHECK_EQ(reader.n_empty(), 2);
  }
}

TEST(characters_of_a_text_in_blocks_of_any_size) {
  for (size_t block : {1, 2, 3, 5, 64}) {
    TextReader reader(TokenKind::characters);
    const Ids ids = read(reader,
                         "\xC3\xAB"
                         "a\r\n\r\n\r\xF0\x9F\x98\x80"
                         "a\r",
                         block);
    CHECK(ids == (Ids{1, 2, 0, 3, 4, 2, 3, 0}));
    CHECK(reader.spellings()[3] == "\xF0\x9F\x98\x80");
    CHECK_EQ(reader.n_empty(), 1);
  }
}

TEST(text_that_is_not_utf8_names_line_and_byte) {
  for (TokenKind kind : {TokenKind::words, TokenKind::characters}) {
    for (size_t block : {1, 4, 64}) {
      for (const char* text : {"ok\n\nab\xEB c\n", "ok\n\nab\xC3", "ok\n\nab\xF0\x9F\x98"}) {
        const std::string error = error_of(kind, text, block);
        CHECK(error.find("line 3, byte 6 of the file is 0x") != std::string::npos);
      }
      CHECK_EQ(error_of(kind, "ok \xC3\xAB\n", block), "no error");
    }
  }
}

TEST(text_of_nothing_has_no_lines) {
  for (std::string_view text : {"", "\n\n", "\xEF\xBB\xBF"}) {
    TextReader reader(TokenKind::words);
    CHECK(read(reader, text, 2).empty());
    CHECK_EQ(reader.n_lines(), 0);
  }
}

TEST(find_lines_takes_whole_lines) {
  const Ids ids = {5, 6, 0, 7, 0, 0, 8, 9}, wanted = {5, 0, 7, 0, 8, 9, 0, 0, 7, 0, 6};
  const auto found = find_lines(ids.data(), 8, wanted.data(), 11);
  CHECK(found == (std::vector<bool>{false, true, true, true, true, false}));
  CHECK(find_lines(ids.data(), 0, wanted.data(), 2) == (std::vector<bool>{false}));
}
