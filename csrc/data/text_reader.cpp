#include "data/text_reader.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include "data/utf8.h"

namespace pymlp::data {

namespace {

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

// The white space of Unicode and the separators U+001C to U+001F: what Python's str.split() takes.
constexpr bool is_space(char32_t c) {
  if (c > 0x20 && c < 0x85) return false;  // nearly all text
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool is_ascii_space(char c) {
  return static_cast<unsigned char>(c) < 0x80 && is_space(static_cast<unsigned char>(c));
}

// How many bytes a character has that begins with this one; 1 for what begins none.
size_t length_of(unsigned char first) {
  return first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC0 ? 2 : 1;
}

}  // namespace

void TextReader::feed(std::string_view block, std::vector<int32_t>& ids) {
  left_.append(block);
  if (!skip_mark(false)) return;
  const size_t size = complete(block.size());
  read(std::string_view(left_).substr(0, size), ids);
  left_.erase(0, size);
}

void TextReader::finish(std::vector<int32_t>& ids) {
  skip_mark(true);
  read(left_, ids);
  left_.clear();
  if (in_line_) end_line(ids);
}

// Whether the text is known to have no byte order mark, or no more.
bool TextReader::skip_mark(bool is_all) {
  if (begun_) return true;
  if (!is_all && left_.size() < byte_order_mark.size()) return false;
  begun_ = true;
  if (std::string_view(left_).substr(0, byte_order_mark.size()) == byte_order_mark) {
    left_.erase(0, byte_order_mark.size());
    n_read_ += static_cast<int64_t>(byte_order_mark.size());
  }
  return true;
}

// How many of the bytes left are certain to be whole tokens, if only the last `unseen` are new.
size_t TextReader::complete(size_t unseen) const {
  size_t size = left_.size();
  if (kind_ == TokenKind::words) {  // up to white space
    const size_t seen = size - std::min(unseen, size);
    while (size > seen && !is_ascii_space(left_[size - 1])) --size;
    return size > seen ? size : 0;
  }
  // All but the beginning of a character, and a "\r" that may belong to a "\n".
  for (size_t n = 1; n <= std::min<size_t>(3, size); ++n) {
    const auto byte = static_cast<unsigned char>(left_[size - n]);
    if (length_of(byte) > n) return size - n;
    if (length_of(byte) > 1) break;
  }
  return size > 0 && left_[size - 1] == '\r' ? size - 1 : size;
}

void TextReader::read(std::string_view text, std::vector<int32_t>& ids) {
  kind_ == TokenKind::words ? read_words(text, ids) : read_characters(text, ids);
  n_read_ += static_cast<int64_t>(text.size());
}

void TextReader::read_words(std::string_view text, std::vector<int32_t>& ids) {
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    size_t end = begin;  // of the word; then `position` is behind the white space that ends it
    while (position < text.size() && !is_space(code_point(text, position))) end = position;
    if (end > begin) {
      ids.push_back(spellings_.number(text.substr(begin, end - begin)));
      in_line_ = true;
    }
    if (end < text.size() && text[end] == '\n') end_line(ids);
  }
}

void TextReader::read_characters(std::string_view text, std::vector<int32_t>& ids) {
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t c = code_point(text, position);
    if (c == U'\r' && position < text.size() && text[position] == '\n') continue;
    if (c == U'\n') {
      end_line(ids);
      continue;
    }
    in_line_ = true;
    if (c >= ascii_.size()) {
      ids.push_back(spellings_.number(text.substr(begin, position - begin)));
      continue;
    }
    int32_t& number = ascii_[c];
    if (number == 0) number = spellings_.number(text.substr(begin, 1));
    ids.push_back(number);
  }
}

char32_t TextReader::code_point(std::string_view text, size_t& position) const {
  try {
    return next_code_point(text, position);
  } catch (const std::invalid_argument&) {
    const auto line = n_lines_ + n_empty_ + 1;
    const auto byte = n_read_ + static_cast<int64_t>(position);
    char value[8];
    std::snprintf(value, sizeof value, "0x%02x", static_cast<unsigned char>(text[position]));
    throw std::invalid_argument("not UTF-8 text: line " + std::to_string(line) + ", byte " +
                                std::to_string(byte) + " of the file is " + value +
                                ", which begins no character of it; convert the file to UTF-8");
  }
}

void TextReader::end_line(std::vector<int32_t>& ids) {
  if (in_line_) ids.push_back(kBoundary);
  ++(in_line_ ? n_lines_ : n_empty_);
  in_line_ = false;
}

}  // namespace pymlp::data
