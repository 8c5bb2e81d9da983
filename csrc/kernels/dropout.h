// Which units dropout keeps: the engine on the CPU and the kernel of devices ask here.
#pragma once

#include "kernels/philox.h"

namespace pymlp {

enum class DropoutLayer : uint32_t { input = 0, hidden = 1 };

// A number for each of the units [4 * group, 4 * group + 4) of an example: a function of its
// arguments alone. Kept are units whose number is at least dropout_threshold(p).
constexpr std::array<uint32_t, 4> dropout_numbers(uint64_t seed, int64_t step, DropoutLayer layer,
                                                  int64_t example, int64_t group) {
  // Steps, examples and units have less than 2^48, 2^32 and 2^33 numbers.
  const auto s = static_cast<uint64_t>(step);
  const auto place = static_cast<uint32_t>(s >> 32) << 1 | static_cast<uint32_t>(layer);
  return philox({static_cast<uint32_t>(group), static_cast<uint32_t>(example),
                 static_cast<uint32_t>(s), place},
                {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

// p: in [0, 1).
constexpr uint32_t dropout_threshold(double p) { return static_cast<uint32_t>(p * 0x1p32); }

}  // namespace pymlp
