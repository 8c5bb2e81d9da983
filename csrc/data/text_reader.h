// UTF-8 text, block by block, to a stream of tokens. No torch, no Python.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/spellings.h"
#include "data/stream.h"

namespace pymlp::data {

enum class TokenKind {
  characters,  // code points
  words,       // what lies between white space, as Python's str.split() sees it
};

// Reads lines that end with "\n" or "\r\n". Empty lines, for words also lines of white space, are
// skipped and counted. A byte order mark at the start is dropped. Anything else is data.
class TextReader {
 public:
  explicit TextReader(TokenKind kind) : kind_(kind) {}

  // Appends the numbers of the tokens that are complete, and kBoundary after each line.
  // Throws std::invalid_argument with line and byte where the text is not valid UTF-8; the reader
  // is of no use then.
  void feed(std::string_view block, std::vector<int32_t>& ids);
  // The same for what is left when the text has ended.
  void finish(std::vector<int32_t>& ids);

  const Spellings& spellings() const { return spellings_; }
  int64_t n_lines() const { return n_lines_; }  // without the empty ones
  int64_t n_empty() const { return n_empty_; }

 private:
  bool skip_mark(bool is_all);
  size_t complete(size_t unseen) const;
  void read(std::string_view text, std::vector<int32_t>& ids);
  void read_words(std::string_view text, std::vector<int32_t>& ids);
  void read_characters(std::string_view text, std::vector<int32_t>& ids);
  char32_t code_point(std::string_view text, size_t& position) const;
  void end_line(std::vector<int32_t>& ids);

  const TokenKind kind_;
  Spellings spellings_;
  std::array<int32_t, 0x80> ascii_{};  // numbers of characters, 0 where not met yet
  std::string left_;                   // bytes whose token may not be complete
  int64_t n_read_ = 0;                 // bytes before them
  bool begun_ = false;                 // past a byte order mark
  bool in_line_ = false;               // the line has a token already
  int64_t n_lines_ = 0, n_empty_ = 0;
};

}  // namespace pymlp::data
