// The 16-bit storage types. Arithmetic is never done in them: cpu/convert-inl.h widens and narrows.
#pragma once

#include <cstdint>

namespace pymlp {

struct bfloat16 {
  uint16_t bits;
};

struct float16 {
  uint16_t bits;
};

}  // namespace pymlp
