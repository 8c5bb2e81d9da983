// The primitives of simt.h on a CUDA device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <utility>

#include "kernels/cuda/queue.h"

#define PYMLP_DEVICE __device__ __forceinline__
#define PYMLP_HOST_DEVICE __host__ __device__

namespace pymlp {
namespace cuda {

constexpr int warp_size = 32;
constexpr unsigned all_lanes = 0xffffffffu;
constexpr int most_cluster_size = 8;  // blocks; more are not had everywhere

// Whether all devices that this file is compiled for have clusters.
constexpr bool has_clusters = [] {
  for (const int architecture : {__CUDA_ARCH_LIST__}) {
    if (architecture < 900) return false;
  }
  return true;
}();

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
  // By generic addresses, which reach into other blocks too.
  PYMLP_DEVICE Shared of(int rank) const {
    T* there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(data_), "r"(rank));
    return Shared(there);
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

  // In PTX, since a file that is compiled for older devices too does not get CUDA's names for it;
  // volatile, since to read them anew costs less than to keep them in registers.
  PYMLP_DEVICE int cluster_size() const {
    int size;
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    return size;
  }
  PYMLP_DEVICE int cluster_rank() const {
    int rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
  }
  PYMLP_DEVICE void cluster_barrier() const {
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
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
  PYMLP_DEVICE void multiply_tf32(const float (&a)[4], const float (&b)[2], float (&c)[4]) const {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
  }

 private:
  unsigned char* shared_;
};

PYMLP_DEVICE float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }
PYMLP_DEVICE uint32_t bits_of_float(float x) { return __float_as_uint(x); }
PYMLP_DEVICE float widen_bits(bfloat16 x) { return float_of_bits(uint32_t(x.bits) << 16); }
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

// Always all there is: the allowance is the kernel's, not the launch's, and threads that launch it
// with different needs must not lower each other's.
template <class Kernel>
cudaError_t allow_shared_bytes() {
  const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(&run_kernel<Kernel>),
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(most_shared_bytes()));
  if (error != cudaSuccess) (void)cudaGetLastError();
  return error;
}

// Launches of a kernel may have most_shared_bytes() from now on; without it, 48 KiB.
template <class Kernel>
void allow_shared_bytes(const Queue& queue) {
  queue.record(allow_shared_bytes<Kernel>());
}

// How a kernel is launched, by clusters of so many blocks.
template <class Kernel>
struct LaunchConfig {
  cudaLaunchAttribute attribute{};
  cudaLaunchConfig_t config{};

  LaunchConfig(Grid grid, int64_t shared_bytes, int cluster, void* stream = nullptr) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
    config.blockDim = dim3(Kernel::threads);
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = &attribute;
    config.numAttrs = cluster > 1 ? 1 : 0;  // older devices know no clusters
  }
  LaunchConfig(const LaunchConfig&) = delete;
  LaunchConfig& operator=(const LaunchConfig&) = delete;
};

// May leave an error behind, and is then no answer.
template <class Kernel>
cudaError_t ask_for_clusters_at_once(int device, int size, int& clusters) {
  int supported = 0;
  cudaError_t error = cudaDeviceGetAttribute(&supported, cudaDevAttrClusterLaunch, device);
  if (error != cudaSuccess || !supported) return error;
  error = allow_shared_bytes<Kernel>();
  if (error != cudaSuccess) return error;
  const LaunchConfig<Kernel> launch({size}, most_shared_bytes(), size);
  const void* const kernel = reinterpret_cast<const void*>(&run_kernel<Kernel>);
  return cudaOccupancyMaxActiveClusters(&clusters, kernel, &launch.config);
}

// The clusters of so many blocks, all with the most shared memory, that the current device runs at
// once: 0 where there are none. Each device is asked until it has answered.
template <class Kernel>
int clusters_at_once(int size) {
  static std::mutex mutex;
  static std::map<std::pair<int, int>, int> known;  // by device and size
  const std::lock_guard<std::mutex> lock(mutex);
  int device = 0, clusters = 0;
  if (cudaGetDevice(&device) == cudaSuccess) {
    const auto found = known.find({device, size});
    if (found != known.end()) return found->second;
    if (ask_for_clusters_at_once<Kernel>(device, size, clusters) == cudaSuccess) {
      return known[{device, size}] = clusters;
    }
  }
  (void)cudaGetLastError();
  return 0;
}

template <class Kernel>
void launch(const Queue& queue, Grid grid, const Kernel& kernel, int64_t shared_bytes = 0,
            int cluster = 1) {
  if (queue.error() != 0 || grid.x == 0 || grid.y == 0) return;
  if (grid.x > 0x7fffffff || grid.y > 0xffff) {
    queue.record(cudaErrorInvalidConfiguration);
    return;
  }
  const LaunchConfig<Kernel> launch(grid, shared_bytes, cluster, queue.stream);
  void* arguments[] = {const_cast<Kernel*>(&kernel)};
  const cudaError_t error = cudaLaunchKernelExC(
      &launch.config, reinterpret_cast<const void*>(&run_kernel<Kernel>), arguments);
  queue.record(error);
  // Reported through the queue; nobody else is to find it.
  if (error != cudaSuccess) (void)cudaGetLastError();
}

inline const char* error_text(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

}  // namespace cuda
}  // namespace pymlp
