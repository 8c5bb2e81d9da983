#include "engine/dropout.h"

#include <algorithm>

namespace pymlp {

void draw_kept(uint64_t seed, int64_t step, DropoutLayer layer, double p, int64_t begin,
               int64_t end, int64_t columns, uint8_t* kept) {
  constexpr int64_t units = 4;  // of a group
  const uint32_t threshold = dropout_threshold(p);
  for (int64_t n = begin; n < end; ++n) {
    for (int64_t c = 0; c < columns; c += units) {
      const auto drawn = dropout_numbers(seed, step, layer, n, c / units);
      for (int64_t i = 0; i < std::min(units, columns - c); ++i) {
        *kept++ = drawn[static_cast<size_t>(i)] >= threshold;
      }
    }
  }
}

}  // namespace pymlp
