// Code that all kernels share: sizes, ids, the types that arithmetic is done in, and sums over the
// threads of a block.
#pragma once

#include <cmath>
#include <cstddef>

#include "kernels/cuda/simt.h"

namespace pymlp {
namespace cuda {

#include "kernels/workspace-inl.h"

PYMLP_HOST_DEVICE constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
PYMLP_HOST_DEVICE constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
PYMLP_HOST_DEVICE constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// True for the types that arithmetic is done in.
template <class S>
constexpr bool is_wide = std::is_same<S, Accumulate<S>>::value;

// Elements of S in 16 bytes, which a thread reads or writes at once.
template <class S>
constexpr int vector_width = 16 / static_cast<int>(sizeof(S));

PYMLP_DEVICE int64_t id_at(const Ids& ids, int64_t i) {
  return ids.is_int64 ? static_cast<const int64_t*>(ids.data)[i]
                      : static_cast<const int32_t*>(ids.data)[i];
}

PYMLP_DEVICE float widen(float x) { return x; }
PYMLP_DEVICE double widen(double x) { return x; }
PYMLP_DEVICE float widen(bfloat16 x) { return widen_bits(x); }
PYMLP_DEVICE float widen(float16 x) { return widen_bits(x); }

PYMLP_DEVICE void narrow(float x, float& out) { out = x; }
PYMLP_DEVICE void narrow(double x, double& out) { out = x; }
PYMLP_DEVICE void narrow(float x, bfloat16& out) { narrow_bits(x, out); }
PYMLP_DEVICE void narrow(float x, float16& out) { narrow_bits(x, out); }

// The accurate functions of the platform: within 2 ulp in float32, 1 in float64.
PYMLP_DEVICE float exp_of(float x) { return expf(x); }
PYMLP_DEVICE double exp_of(double x) { return exp(x); }
PYMLP_DEVICE float log_of(float x) { return logf(x); }
PYMLP_DEVICE double log_of(double x) { return log(x); }
PYMLP_DEVICE float tanh_of(float x) { return tanhf(x); }
PYMLP_DEVICE double tanh_of(double x) { return tanh(x); }
PYMLP_DEVICE float sqrt_of(float x) { return sqrtf(x); }
PYMLP_DEVICE double sqrt_of(double x) { return sqrt(x); }

// a b + c, rounded once. No compiler fuses anything else: a b + c is rounded twice, on the device
// as in the emulation.
PYMLP_DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }
PYMLP_DEVICE double fused(double a, double b, double c) { return fma(a, b, c); }

template <class A>
PYMLP_DEVICE A infinity() {
  return A(INFINITY);
}
template <class A>
PYMLP_DEVICE A not_a_number() {
  return A(NAN);
}

// --- W elements of a row -------------------------------------------------------------------------

template <int alignment, class T>
PYMLP_DEVICE bool is_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % alignment == 0;
}

// x = row[v], row[v + 1], ...; `rest` for what lies outside [0, V), which is not read.
template <int W, class S>
PYMLP_DEVICE void load_elements(const S* row, int64_t v, int64_t V, Accumulate<S> rest,
                                Accumulate<S> (&x)[W]) {
  constexpr int width = W < vector_width<S> ? W : vector_width<S>;
  if (v >= 0 && v + W <= V && is_aligned<width * sizeof(S)>(row + v)) {
#pragma unroll
    for (int j = 0; j < W; j += width) {
      const auto vector = *reinterpret_cast<const Vector<S, width>*>(row + v + j);
#pragma unroll
      for (int i = 0; i < width; ++i) x[j + i] = widen(vector.element[i]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < W; ++i) x[i] = v + i >= 0 && v + i < V ? widen(row[v + i]) : rest;
}

// row[v], row[v + 1], ... = x where that lies inside [0, V).
template <int W, class S>
PYMLP_DEVICE void store_elements(S* row, int64_t v, int64_t V, const Accumulate<S> (&x)[W]) {
  constexpr int width = W < vector_width<S> ? W : vector_width<S>;
  if (v >= 0 && v + W <= V && is_aligned<width * sizeof(S)>(row + v)) {
#pragma unroll
    for (int j = 0; j < W; j += width) {
      Vector<S, width> vector;
#pragma unroll
      for (int i = 0; i < width; ++i) narrow(x[j + i], vector.element[i]);
      *reinterpret_cast<Vector<S, width>*>(row + v + j) = vector;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < W; ++i) {
    if (v + i >= 0 && v + i < V) narrow(x[i], row[v + i]);
  }
}

// --- sums over threads ---------------------------------------------------------------------------

// Over groups of `lanes` lanes of a warp. Both lanes of a pair add the same two numbers, so all end
// with the same bits.
template <int lanes, class T>
PYMLP_DEVICE T lanes_sum(Thread& t, T x) {
#pragma unroll
  for (int distance = lanes / 2; distance > 0; distance /= 2) x += t.shuffle_xor(x, distance);
  return x;
}

template <int lanes, class T>
PYMLP_DEVICE T lanes_max(Thread& t, T x) {
#pragma unroll
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    const T other = t.shuffle_xor(x, distance);
    x = other > x ? other : x;
  }
  return x;
}

// Over the whole block, for every thread; scratch: one element a warp, free again afterwards.
template <class T>
PYMLP_DEVICE T block_sum(Thread& t, Shared<T> scratch, T x) {
  x = lanes_sum<warp_size>(t, x);
  if (t.lane == 0) scratch[t.warp] = x;
  t.barrier();  // all warps' sums are there
  T sum = 0;
  for (int warp = 0; warp < t.warps; ++warp) sum += T(scratch[warp]);
  t.barrier();  // all have read them
  return sum;
}

template <class T>
PYMLP_DEVICE T block_max(Thread& t, Shared<T> scratch, T x) {
  x = lanes_max<warp_size>(t, x);
  if (t.lane == 0) scratch[t.warp] = x;
  t.barrier();  // all warps' maxima are there
  T largest = scratch[0];
  for (int warp = 1; warp < t.warps; ++warp) {
    const T other = scratch[warp];
    largest = other > largest ? other : largest;
  }
  t.barrier();  // all have read them
  return largest;
}

// Over a group of `lanes` threads: part of a warp, or the block if they are more than a warp.
template <int lanes, class T>
PYMLP_DEVICE T group_sum(Thread& t, Shared<T> scratch, T x) {
  if constexpr (lanes <= warp_size) return lanes_sum<lanes>(t, x);
  return block_sum(t, scratch, x);
}

template <int lanes, class T>
PYMLP_DEVICE T group_max(Thread& t, Shared<T> scratch, T x) {
  if constexpr (lanes <= warp_size) return lanes_max<lanes>(t, x);
  return block_max(t, scratch, x);
}

}  // namespace cuda
}  // namespace pymlp
