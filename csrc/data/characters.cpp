#include "data/characters.h"

#include <algorithm>

#include "data/utf8.h"

namespace pymlp::data {
namespace {

// One entry for every code point up to the largest in use: a look-up is one load.
std::vector<int32_t> id_table(const std::vector<char32_t>& code_points) {
  char32_t largest = 0x7F;
  for (const char32_t code_point : code_points) largest = std::max(largest, code_point);
  std::vector<int32_t> table(static_cast<size_t>(largest) + 1, kUnknown);
  for (size_t i = 0; i < code_points.size(); ++i) {
    table[code_points[i]] = static_cast<int32_t>(i) + 1;
  }
  return table;
}

}  // namespace

std::vector<char32_t> distinct_code_points(std::string_view text) {
  std::vector<char> seen(0x80, false);  // one entry for every code point up to the largest met
  for (size_t position = 0; position < text.size();) {
    const char32_t code_point = next_code_point(text, position);
    if (code_point >= seen.size()) seen.resize(code_point + 1, false);
    seen[code_point] = true;
  }
  seen['\n'] = false;
  std::vector<char32_t> code_points;
  for (char32_t code_point = 0; code_point < seen.size(); ++code_point) {
    if (seen[code_point]) code_points.push_back(code_point);
  }
  return code_points;
}

std::vector<int32_t> encode(std::string_view text, const std::vector<char32_t>& code_points) {
  const std::vector<int32_t> table = id_table(code_points);
  std::vector<int32_t> ids;
  ids.reserve(text.size() + 1);
  for (size_t position = 0; position < text.size();) {
    const char32_t code_point = next_code_point(text, position);
    ids.push_back(code_point == U'\n'         ? kBoundary
                  : code_point < table.size() ? table[code_point]
                                              : kUnknown);
  }
  ids.push_back(kBoundary);
  return ids;
}

}  // namespace pymlp::data
