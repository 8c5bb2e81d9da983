#include "engine/dropout.h"

#include <algorithm>

#include "engine/philox.h"

namespace pymlp {

void draw_kept(uint64_t seed, int64_t step, DropoutLayer layer, double p, int64_t begin,
               int64_t end, int64_t columns, uint8_t* kept) {
  constexpr int64_t words = 4;  // numbers of one call of philox
  const auto threshold = static_cast<uint32_t>(p * 0x1p32);
  const auto low = [](auto x) { return static_cast<uint32_t>(static_cast<uint64_t>(x)); };
  const auto high = [](auto x) { return static_cast<uint32_t>(static_cast<uint64_t>(x) >> 32); };
  // Steps, examples and units have less than 2^48, 2^32 and 2^33 numbers.
  const uint32_t place = high(step) << 1 | static_cast<uint32_t>(layer);
  for (int64_t n = begin; n < end; ++n) {
    for (int64_t c = 0; c < columns; c += words) {
      const auto drawn =
          philox({low(c / words), low(n), low(step), place}, {low(seed), high(seed)});
      for (int64_t i = 0; i < std::min(words, columns - c); ++i) {
        *kept++ = drawn[static_cast<size_t>(i)] >= threshold;
      }
    }
  }
}

}  // namespace pymlp
