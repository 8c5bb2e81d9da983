#include "data/find_lines.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "data/stream.h"

namespace pymlp::data {

namespace {

// Calls body(bytes of the line) for each line.
template <class Body>
void for_lines(const int32_t* ids, int64_t size, const Body& body) {
  const int32_t* const end = ids + size;
  while (ids < end) {
    const int32_t* const boundary = std::find(ids, end, kBoundary);
    body(std::string_view(reinterpret_cast<const char*>(ids),
                          static_cast<size_t>(boundary - ids) * sizeof(int32_t)));
    ids = boundary + (boundary < end);
  }
}

}  // namespace

std::vector<bool> find_lines(const int32_t* ids, int64_t size, const int32_t* wanted,
                             int64_t wanted_size) {
  std::unordered_map<std::string_view, bool> found;
  for_lines(wanted, wanted_size, [&](std::string_view line) { found.emplace(line, false); });
  for_lines(ids, size, [&](std::string_view line) {
    const auto entry = found.find(line);
    if (entry != found.end()) entry->second = true;
  });
  std::vector<bool> each;
  for_lines(wanted, wanted_size, [&](std::string_view line) { each.push_back(found[line]); });
  return each;
}

}  // namespace pymlp::data
