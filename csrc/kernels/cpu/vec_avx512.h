// Vec for AVX-512 (F, BW, DQ, VL); the interface is described in vec_baseline.h.

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int size = 16;
  static constexpr int gemm_rows = 8;
  static constexpr int gemm_vectors = 3;
  __m512 v;

  static Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const float* p, int n, float rest) {
    return {_mm512_mask_loadu_ps(_mm512_set1_ps(rest), first(n), p)};
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(float* p, int n) const { _mm512_mask_storeu_ps(p, first(n), v); }

  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  friend Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  friend Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
  friend Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
  friend Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  friend Vec less_select(Vec a, Vec b, Vec yes, Vec no) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
  }
  friend Vec abs(Vec a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
  friend Vec copysign(Vec magnitude, Vec sign) {
    const __m512i take_sign = _mm512_set1_epi32(INT32_MIN);  // 0xca: where set, the second
    return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(take_sign, _mm512_castps_si512(sign.v),
                                                          _mm512_castps_si512(magnitude.v), 0xca))};
  }
  friend Vec shift_exponent(Vec a) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 23))};
  }
  friend Vec scale_by_power_of_two(Vec m, Vec n, Vec x, Vec lowest) {
    const __mmask16 kept = _mm512_cmp_ps_mask(x.v, lowest.v, _CMP_NLT_UQ);
    return {_mm512_maskz_scalef_ps(kept, m.v, n.v)};
  }

  float reduce_add() const { return _mm512_reduce_add_ps(v); }
  float reduce_max() const { return _mm512_reduce_max_ps(v); }

 private:
  static __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }
};

template <>
struct Vec<double> {
  static constexpr int size = 8;
  static constexpr int gemm_rows = 8;
  static constexpr int gemm_vectors = 3;
  __m512d v;

  static Vec broadcast(double x) { return {_mm512_set1_pd(x)}; }
  static Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static Vec load(const double* p, int n, double rest) {
    return {_mm512_mask_loadu_pd(_mm512_set1_pd(rest), first(n), p)};
  }
  void store(double* p) const { _mm512_storeu_pd(p, v); }
  void store(double* p, int n) const { _mm512_mask_storeu_pd(p, first(n), v); }

  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_pd(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_pd(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_pd(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_pd(a.v, b.v)}; }
  friend Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
  friend Vec sqrt(Vec a) { return {_mm512_sqrt_pd(a.v)}; }
  friend Vec max(Vec a, Vec b) { return {_mm512_max_pd(a.v, b.v)}; }
  friend Vec min(Vec a, Vec b) { return {_mm512_min_pd(a.v, b.v)}; }
  friend Vec less_select(Vec a, Vec b, Vec yes, Vec no) {
    return {_mm512_mask_blend_pd(_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
  }
  friend Vec abs(Vec a) { return {_mm512_andnot_pd(_mm512_set1_pd(-0.0), a.v)}; }
  friend Vec copysign(Vec magnitude, Vec sign) {
    const __m512i take_sign = _mm512_set1_epi64(INT64_MIN);
    return {_mm512_castsi512_pd(_mm512_ternarylogic_epi64(take_sign, _mm512_castpd_si512(sign.v),
                                                          _mm512_castpd_si512(magnitude.v), 0xca))};
  }
  friend Vec shift_exponent(Vec a) {
    return {_mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a.v), 52))};
  }
  friend Vec scale_by_power_of_two(Vec m, Vec n, Vec x, Vec lowest) {
    const __mmask8 kept = _mm512_cmp_pd_mask(x.v, lowest.v, _CMP_NLT_UQ);
    return {_mm512_maskz_scalef_pd(kept, m.v, n.v)};
  }

  double reduce_add() const { return _mm512_reduce_add_pd(v); }
  double reduce_max() const { return _mm512_reduce_max_pd(v); }

 private:
  static __mmask8 first(int n) { return static_cast<__mmask8>((1u << n) - 1); }
};
