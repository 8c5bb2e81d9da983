// A corpus as token ids one after the other, and contexts formed from positions in it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace pymlp::data {

// Ends every line and pads contexts.
inline constexpr int32_t kBoundary = 0;

struct TokenStream {
  const int32_t* ids = nullptr;
  bool reset = true;  // contexts begin where their line begins; else they run on across lines
};

// The T ids before `position`, the oldest first. What lies before the stream reads as kBoundary,
// and with `reset` also what lies before the nearest kBoundary.
//   context  (T) overwritten
template <class Id>
inline void write_context(const TokenStream& stream, int64_t position, int64_t T, Id* context) {
  const int64_t padding = std::max<int64_t>(T - position, 0);
  int32_t mask = -1;  // 0 as soon as a boundary lies between here and the position
  for (int64_t t = T - 1; t >= padding; --t) {
    const int32_t id = stream.ids[position - T + t];
    if (stream.reset) mask &= -static_cast<int32_t>(id != kBoundary);
    context[t] = id & mask;
  }
  std::fill_n(context, padding, Id(kBoundary));
}

}  // namespace pymlp::data
