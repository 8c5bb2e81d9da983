// Between storage types and the type arithmetic is done in. Where they are the same nothing is
// copied: `widened` hands back the caller's own array, `narrow` has nothing left to do.

inline uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

inline float widen(bfloat16 x) { return float_of(uint32_t(x.bits) << 16); }

inline bfloat16 narrow_to(float x, bfloat16*) {
  const uint32_t bits = bits_of(x);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded =
      (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  return {static_cast<uint16_t>(nan ? 0x7fc0u : rounded)};
}

// Subnormal numbers of float16 are normal ones of float32. On no way between them is there a
// subnormal float32: where the processor flushes those to zero (torch.set_flush_denormal), those of
// float16 stay what they are, as in PyTorch.

inline float widen(float16 x) {
  const uint32_t magnitude = x.bits & 0x7fffu;
  // The bits of a subnormal count units of 2⁻²⁴, as the last bits of 0.5 do.
  const uint32_t subnormal = bits_of(float_of(magnitude | 0x3f000000u) - 0.5f);
  const uint32_t normal = (magnitude << 13) + 0x38000000u;  // the exponent's bias is 112 larger
  uint32_t bits = magnitude < 0x0400u ? subnormal : normal;
  if (magnitude >= 0x7c00u) bits |= 0x7f800000u;  // infinity, NaN
  return float_of(bits | uint32_t(x.bits & 0x8000u) << 16);
}

inline float16 narrow_to(float x, float16*) {
  const uint32_t sign = (bits_of(x) >> 16) & 0x8000u;
  const uint32_t bits = bits_of(x) & 0x7fffffffu;
  uint32_t half;
  if (bits > 0x7f800000u) {
    half = 0x7e00u;
  } else if (bits >= 0x477ff000u) {  // rounds to 65536 or more
    half = 0x7c00u;
  } else if (bits < 0x38800000u) {  // subnormal or zero: adding 0.5 rounds at the right bit
    half = bits_of(float_of(bits) + 0.5f) - 0x3f000000u;
  } else {
    half = (bits - 0x38000000u + 0x0fffu + ((bits >> 13) & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(half | sign)};
}

// True for the types that arithmetic is done in.
template <class S>
constexpr bool is_wide = std::is_same<S, Accumulate<S>>::value;

// The array that `widened` returns: the input itself, or the scratch.
template <class S>
inline const Accumulate<S>* readable(const S* in, Accumulate<S>* scratch) {
  if constexpr (is_wide<S>) {
    return in;
  } else {
    return in == nullptr ? nullptr : scratch;
  }
}

// An array in the type of arithmetic.
template <class S>
inline const Accumulate<S>* widened(const S* in, int64_t n, Accumulate<S>* scratch) {
  const Accumulate<S>* const result = readable(in, scratch);
  if constexpr (!is_wide<S>) {
    for (int64_t i = 0; result && i < n; ++i) scratch[i] = widen(in[i]);
  }
  return result;
}

// Scratch elements that `widened` and `writable` need for an array of n.
template <class S>
inline int64_t scratch_size(int64_t n) {
  return is_wide<S> ? 0 : n;
}

// The array to compute an output in: its own, or scratch that `narrow` then rounds into it.
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

// Element n of a caller's array, which may be null.
template <class S>
inline S* offset(S* array, int64_t n) {
  return array ? array + n : nullptr;
}
