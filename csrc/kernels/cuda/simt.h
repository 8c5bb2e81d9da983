// The primitives that CUDA kernels are written in. There are two sets of them with one interface:
// that of nvcc (simt_device.h), and an emulation for the host (tests/cpp/cuda/simt_emulation.h),
// under which the very same kernels run with threads in shuffled order and every access checked.
//
// A kernel is a struct of its arguments with
//
//   static constexpr int threads = ...;             of a block, whole warps
//   PYMLP_DEVICE void operator()(Thread& t) const;  what one thread does
//
// and is started by launch(queue, grid, kernel, shared_bytes). The interface of Thread:
//
//   thread, threads, lane, warp, warps    of the block; constant
//   block, blocks, block_y                of the grid
//   shared<T>(count)                      an array in shared memory; all threads ask for the same
//                                         arrays in the same order
//   barrier()                             all threads of the block
//   sync_warp()                           the lanes of `mask`, and what they wrote before
//   shuffle(x, from), shuffle_xor(x, i)   x of another lane of `mask`
//   ballot(b)                             a bit for each lane of `mask` where b is true
//   atomic_min/max(address, x)            on int64_t in global memory
//
// Every lane of a mask has to come to the same call; lanes may come apart before it, not around it.
// An element of a shared array is read by giving it a type (`float x = a[i]`, never `auto`) and
// written by assignment; vector<W>(i) reads W of them from i on, a multiple of W, and store(i,
// vector) writes them.
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
