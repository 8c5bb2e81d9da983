// Transposes of matrices that fit the caches, in 4 x 4 blocks of floats held in registers.

#if defined(__clang__)
#define PYMLP_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define PYMLP_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, Int4{i, j, k, l})
#endif

typedef float Float4 __attribute__((vector_size(16)));
typedef int32_t Int4 __attribute__((vector_size(16)));

inline Float4 load4(const float* p) {
  Float4 v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

inline void store4(float* p, Float4 v) { __builtin_memcpy(p, &v, sizeof(v)); }

inline void transpose_block(const float* in, int64_t ld_in, float* out, int64_t ld_out) {
  const Float4 a = load4(in), b = load4(in + ld_in);
  const Float4 c = load4(in + 2 * ld_in), d = load4(in + 3 * ld_in);
  const Float4 ab_low = PYMLP_SHUFFLE(a, b, 0, 4, 1, 5), ab_high = PYMLP_SHUFFLE(a, b, 2, 6, 3, 7);
  const Float4 cd_low = PYMLP_SHUFFLE(c, d, 0, 4, 1, 5), cd_high = PYMLP_SHUFFLE(c, d, 2, 6, 3, 7);
  store4(out, PYMLP_SHUFFLE(ab_low, cd_low, 0, 1, 4, 5));
  store4(out + ld_out, PYMLP_SHUFFLE(ab_low, cd_low, 2, 3, 6, 7));
  store4(out + 2 * ld_out, PYMLP_SHUFFLE(ab_high, cd_high, 0, 1, 4, 5));
  store4(out + 3 * ld_out, PYMLP_SHUFFLE(ab_high, cd_high, 2, 3, 6, 7));
}

#undef PYMLP_SHUFFLE

// out (columns, rows) = in (rows, columns)ᵀ, their rows ld_out and ld_in elements apart.
template <class T>
inline void transpose(int64_t rows, int64_t columns, const T* in, int64_t ld_in, T* out,
                      int64_t ld_out) {
  constexpr int64_t block = 4;
  if (std::is_same<T, float>::value && rows >= block && columns >= block) {
    // The last blocks overlap those before: what is written twice is the same.
    for (int64_t i = 0; i < rows; i += block) {
      const int64_t i0 = smaller(i, rows - block);
      for (int64_t j = 0; j < columns; j += block) {
        const int64_t j0 = smaller(j, columns - block);
        if constexpr (std::is_same<T, float>::value) {
          transpose_block(in + i0 * ld_in + j0, ld_in, out + j0 * ld_out + i0, ld_out);
        }
      }
    }
    return;
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) out[j * ld_out + i] = in[i * ld_in + j];
  }
}
