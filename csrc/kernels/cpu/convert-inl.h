// Between storage types and the type arithmetic is done in. Where they are the same nothing is
// copied: `widened` hands back the caller's own array, `narrow` has nothing left to do.

inline float widen(bfloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float out;
  __builtin_memcpy(&out, &bits, 4);
  return out;
}

inline bfloat16 narrow_to(float x, bfloat16*) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded =
      (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  return {static_cast<uint16_t>(nan ? 0x7fc0u : rounded)};
}

inline float widen(float16 x) {
  // Moved into float32's place the exponent is 112 too small, for subnormals too.
  const uint32_t shifted = uint32_t(x.bits & 0x7fffu) << 13;
  float magnitude;
  __builtin_memcpy(&magnitude, &shifted, 4);
  magnitude *= 0x1p112f;
  uint32_t bits;
  __builtin_memcpy(&bits, &magnitude, 4);
  if (shifted >= 0x0f800000u) bits = shifted | 0x7f800000u;  // infinity, NaN
  bits |= uint32_t(x.bits & 0x8000u) << 16;
  float out;
  __builtin_memcpy(&out, &bits, 4);
  return out;
}

inline float16 narrow_to(float x, float16*) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  uint32_t half;
  if (bits > 0x7f800000u) {
    half = 0x7e00u;
  } else if (bits >= 0x477ff000u) {  // rounds to 65536 or more
    half = 0x7c00u;
  } else if (bits < 0x38800000u) {  // subnormal or zero: adding 0.5 rounds at the right bit
    float magnitude;
    __builtin_memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    __builtin_memcpy(&half, &magnitude, 4);
    half -= 0x3f000000u;
  } else {
    half = (bits - 0x38000000u + 0x0fffu + ((bits >> 13) & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(half | sign)};
}

// True for the types that arithmetic is done in.
template <class S>
constexpr bool is_wide = std::is_same<S, Accumulate<S>>::value;

template <class S>
inline const Accumulate<S>* widened(const S* in, int64_t n, Accumulate<S>* scratch) {
  if constexpr (is_wide<S>) {
    return in;
  } else {
    if (in == nullptr) return nullptr;
    for (int64_t i = 0; i < n; ++i) scratch[i] = widen(in[i]);
    return scratch;
  }
}

// Scratch elements that `widened` and `writable` need for an array of n.
template <class S>
inline int64_t scratch_size(int64_t n) {
  return is_wide<S> ? 0 : n;
}

// Where to compute an output: in place, or in scratch that `narrow` then rounds into it.
template <class S>
inline Accumulate<S>* writable(S* out, Accumulate<S>* scratch) {
  if constexpr (is_wide<S>) {
    return out;
  } else {
    return scratch;
  }
}

template <class S>
inline void narrow(const Accumulate<S>* scratch, int64_t n, S* out) {
  if constexpr (!is_wide<S>) {
    for (int64_t i = 0; i < n; ++i) out[i] = narrow_to(scratch[i], out);
  }
}

// The last step of an output computed in `writable`'s place: its common factor, then its rounding.
template <class S>
inline void finish(Accumulate<S>* computed, int64_t n, Accumulate<S> factor, S* out) {
  scale(computed, n, factor);
  narrow(computed, n, out);
}
