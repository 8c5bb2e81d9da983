// The primitives that CUDA kernels are written in. There are two sets of them with one interface:
// that of nvcc (simt_device.h), and an emulation for the host (tests/cpp/cuda/simt_emulation.h),
// under which the very same kernels run with threads in shuffled order and every access checked.
//
// A kernel is a struct of its arguments with
//
//   static constexpr int threads = ...;             of a block, whole warps
//   PYMLP_DEVICE void operator()(Thread& t) const;  what one thread does
//
// and is started by launch(queue, grid, kernel, shared_bytes, cluster). The interface of Thread:
//
//   thread, threads, lane, warp, warps    of the block; constant
//   block, blocks, block_y                of the grid
//   shared<T>(count)                      an array in shared memory; all threads ask for the same
//                                         arrays in the same order
//   barrier()                             all threads of the block
//   cluster_size(), cluster_rank()        blocks of this one's cluster, and which of them it is
//   cluster_barrier()                     all threads of the cluster
//   sync_warp()                           the lanes of `mask`, and what they wrote before
//   shuffle(x, from), shuffle_xor(x, i)   x of another lane of `mask`
//   ballot(b)                             a bit for each lane of `mask` where b is true
//   atomic_min/max(address, x)            on int64_t in global memory
//   multiply_tf32(a, b, c)                by the tensor cores, of all lanes: c (16, 8) +=
//                                         a (16, 8) b (8, 8), factors TF32: floats of 11 bits
//
// Lane 4 g + i has of a: (g, i), (g + 8, i), (g, i + 4), (g + 8, i + 4); of b: (i, g), (i + 4, g);
// of c: (g, 2 i), (g, 2 i + 1), (g + 8, 2 i), (g + 8, 2 i + 1).
//
// Every lane of a mask has to come to the same call; lanes may come apart before it, not around it.
// An element of a shared array is read by giving it a type (`float x = a[i]`, never `auto`) and
// written by assignment; vector<W>(i) reads W of them from i on, a multiple of W, and store(i,
// vector) writes them.
//
// A cluster is as many blocks, one after the other in x, as the launch says: at most
// most_cluster_size, 1 without saying. They run at once, and array.of(rank) is the array of another
// block that has asked for the same ones, to be read: not before a cluster barrier after it was
// written, nor after one before it is written again or its block ends. Kernels that do so are in
// files that are compiled for sm_90 and newer alone, where has_clusters is true;
// clusters_at_once<Kernel>(size) is how many the device runs: 0 if it has none of that size.
//
// float_of_bits and bits_of_float are of a float's 32 bits.
//
// allow_shared_bytes<Kernel>(queue) has to come before a launch with more than 48 KiB of shared
// memory; most_shared_bytes() is what the device has.
#pragma once

#include "kernels/cuda/queue.h"

#if defined(__CUDACC__)
#include "kernels/cuda/simt_device.h"
#else
#include "simt_emulation.h"
#endif
