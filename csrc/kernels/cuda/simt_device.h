// The primitives of simt.h on a CUDA device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/queue.h"

#define PYMLP_DEVICE __device__ __forceinline__
#define PYMLP_HOST_DEVICE __host__ __device__

namespace pymlp {
namespace cuda {

constexpr int warp_size = 32;
constexpr unsigned all_lanes = 0xffffffffu;

struct Grid {
  int64_t x, y = 1;
};

// W elements that are read or written at once, in one instruction where they fill 16 bytes.
template <class T, int W>
struct alignas(W * sizeof(T)) Vector {
  T element[W];
};

template <class T>
class Shared {
 public:
  PYMLP_DEVICE explicit Shared(T* data) : data_(data) {}
  PYMLP_DEVICE T& operator[](int i) const { return data_[i]; }
  template <int W>
  PYMLP_DEVICE Vector<T, W> vector(int i) const {
    return *reinterpret_cast<const Vector<T, W>*>(data_ + i);
  }
  template <int W>
  PYMLP_DEVICE void store(int i, const Vector<T, W>& v) const {
    *reinterpret_cast<Vector<T, W>*>(data_ + i) = v;
  }

 private:
  T* data_;
};

class Thread {
 public:
  const int thread, threads, lane, warp, warps;
  const int64_t block, blocks, block_y;

  PYMLP_DEVICE explicit Thread(unsigned char* shared)
      : thread(static_cast<int>(threadIdx.x)),
        threads(static_cast<int>(blockDim.x)),
        lane(thread % warp_size),
        warp(thread / warp_size),
        warps(threads / warp_size),
        block(blockIdx.x),
        blocks(gridDim.x),
        block_y(blockIdx.y),
        shared_(shared) {}

  template <class T>
  PYMLP_DEVICE Shared<T> shared(int count) {
    T* array = reinterpret_cast<T*>(shared_);
    shared_ += (count * sizeof(T) + 15) / 16 * 16;
    return Shared<T>(array);
  }

  PYMLP_DEVICE void barrier() const { __syncthreads(); }
  PYMLP_DEVICE void sync_warp(unsigned mask = all_lanes) const { __syncwarp(mask); }
  template <class T>
  PYMLP_DEVICE T shuffle(T x, int from, unsigned mask = all_lanes) const {
    return __shfl_sync(mask, x, from);
  }
  template <class T>
  PYMLP_DEVICE T shuffle_xor(T x, int lanes, unsigned mask = all_lanes) const {
    return __shfl_xor_sync(mask, x, lanes);
  }
  PYMLP_DEVICE unsigned ballot(bool b, unsigned mask = all_lanes) const {
    return __ballot_sync(mask, b);
  }
  PYMLP_DEVICE void atomic_min(int64_t* address, int64_t x) const {
    atomicMin(reinterpret_cast<long long*>(address), static_cast<long long>(x));
  }
  PYMLP_DEVICE void atomic_max(int64_t* address, int64_t x) const {
    atomicMax(reinterpret_cast<long long*>(address), static_cast<long long>(x));
  }

 private:
  unsigned char* shared_;
};

PYMLP_DEVICE float widen_bits(bfloat16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
PYMLP_DEVICE float widen_bits(float16 x) { return __half2float(__ushort_as_half(x.bits)); }
PYMLP_DEVICE void narrow_bits(float x, bfloat16& out) {
  out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
PYMLP_DEVICE void narrow_bits(float x, float16& out) {
  out.bits = __half_as_ushort(__float2half_rn(x));
}

PYMLP_DEVICE int lowest_bit(unsigned x) { return __ffs(static_cast<int>(x)) - 1; }

template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads, 1) run_kernel(const Kernel kernel) {
  extern __shared__ __align__(16) unsigned char shared[];
  Thread t(shared);
  kernel(t);
}

// The most shared memory that may be allowed on the current device.
inline int64_t most_shared_bytes() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
          cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  return bytes;
}

// Launches of a kernel may have most_shared_bytes() from now on; without it, 48 KiB. Always all
// there is: the allowance is the kernel's, not the launch's, and threads that launch it with
// different needs must not lower each other's.
template <class Kernel>
void allow_shared_bytes(const Queue& queue) {
  const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(&run_kernel<Kernel>),
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(most_shared_bytes()));
  queue.record(error);
  if (error != cudaSuccess) (void)cudaGetLastError();
}

template <class Kernel>
void launch(const Queue& queue, Grid grid, const Kernel& kernel, int64_t shared_bytes = 0) {
  if (queue.error() != 0 || grid.x == 0 || grid.y == 0) return;
  if (grid.x > 0x7fffffff || grid.y > 0xffff) {
    queue.record(cudaErrorInvalidConfiguration);
    return;
  }
  void* arguments[] = {const_cast<Kernel*>(&kernel)};
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
  const cudaError_t error = cudaLaunchKernel(
      reinterpret_cast<const void*>(&run_kernel<Kernel>), blocks, dim3(Kernel::threads), arguments,
      static_cast<size_t>(shared_bytes), static_cast<cudaStream_t>(queue.stream));
  queue.record(error);
  // Reported through the queue; nobody else is to find it.
  if (error != cudaSuccess) (void)cudaGetLastError();
}

inline const char* error_text(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

}  // namespace cuda
}  // namespace pymlp
