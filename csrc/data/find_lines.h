// Which lines a stream holds. No torch, no Python.
#pragma once

#include <cstdint>
#include <vector>

namespace pymlp::data {

// For each line of `wanted`, whether it is a line of `ids`, too. Both are streams, whose last line
// need not be ended.
std::vector<bool> find_lines(const int32_t* ids, int64_t size, const int32_t* wanted,
                             int64_t wanted_size);

}  // namespace pymlp::data
