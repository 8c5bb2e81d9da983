// Vec for arm64 NEON; the interface is described in vec_baseline.h.

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int size = 4;
  static constexpr int gemm_rows = 8;
  static constexpr int gemm_vectors = 2;
  float32x4_t v;

  static Vec broadcast(float x) { return {vdupq_n_f32(x)}; }
  static Vec load(const float* p) { return {vld1q_f32(p)}; }
  static Vec load(const float* p, int n, float rest) {
    float lanes[size];
    for (int i = 0; i < size; ++i) lanes[i] = i < n ? p[i] : rest;
    return load(lanes);
  }
  void store(float* p) const { vst1q_f32(p, v); }
  void store(float* p, int n) const {
    float lanes[size];
    store(lanes);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }

  friend Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
  friend Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
  friend Vec sqrt(Vec a) { return {vsqrtq_f32(a.v)}; }
  friend Vec max(Vec a, Vec b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
  friend Vec min(Vec a, Vec b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
  friend Vec less_select(Vec a, Vec b, Vec yes, Vec no) {
    return {vbslq_f32(vcltq_f32(a.v, b.v), yes.v, no.v)};
  }
  friend Vec abs(Vec a) { return {vabsq_f32(a.v)}; }
  friend Vec copysign(Vec magnitude, Vec sign) {
    return {vbslq_f32(vdupq_n_u32(0x80000000u), sign.v, magnitude.v)};
  }
  friend Vec shift_exponent(Vec a) {
    return {vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(a.v), 23))};
  }

  float reduce_add() const { return vaddvq_f32(v); }
  float reduce_max() const { return vmaxvq_f32(v); }
};

template <>
struct Vec<double> {
  static constexpr int size = 2;
  static constexpr int gemm_rows = 8;
  static constexpr int gemm_vectors = 2;
  float64x2_t v;

  static Vec broadcast(double x) { return {vdupq_n_f64(x)}; }
  static Vec load(const double* p) { return {vld1q_f64(p)}; }
  static Vec load(const double* p, int n, double rest) {
    double lanes[size];
    for (int i = 0; i < size; ++i) lanes[i] = i < n ? p[i] : rest;
    return load(lanes);
  }
  void store(double* p) const { vst1q_f64(p, v); }
  void store(double* p, int n) const {
    double lanes[size];
    store(lanes);
    for (int i = 0; i < n; ++i) p[i] = lanes[i];
  }

  friend Vec operator+(Vec a, Vec b) { return {vaddq_f64(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {vsubq_f64(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {vmulq_f64(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {vdivq_f64(a.v, b.v)}; }
  friend Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f64(c.v, a.v, b.v)}; }
  friend Vec sqrt(Vec a) { return {vsqrtq_f64(a.v)}; }
  friend Vec max(Vec a, Vec b) { return {vbslq_f64(vcgtq_f64(a.v, b.v), a.v, b.v)}; }
  friend Vec min(Vec a, Vec b) { return {vbslq_f64(vcltq_f64(a.v, b.v), a.v, b.v)}; }
  friend Vec less_select(Vec a, Vec b, Vec yes, Vec no) {
    return {vbslq_f64(vcltq_f64(a.v, b.v), yes.v, no.v)};
  }
  friend Vec abs(Vec a) { return {vabsq_f64(a.v)}; }
  friend Vec copysign(Vec magnitude, Vec sign) {
    return {vbslq_f64(vdupq_n_u64(0x8000000000000000u), sign.v, magnitude.v)};
  }
  friend Vec shift_exponent(Vec a) {
    return {vreinterpretq_f64_s64(vshlq_n_s64(vreinterpretq_s64_f64(a.v), 52))};
  }

  double reduce_add() const { return vaddvq_f64(v); }
  double reduce_max() const { return vmaxvq_f64(v); }
};
