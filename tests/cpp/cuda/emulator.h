// Runs the threads of a block as fibres on one host thread, in an order drawn from a seed, and
// ends the process with a message where they do what a GPU would not forgive:
//
//   lanes of one mask in different calls, or with different masks; a value from a lane outside the
//   mask; threads in different barriers, or gone while others wait; waiting for ever; an element of
//   shared memory beyond its array, read before anybody wrote it, or touched by two threads, one of
//   them writing, with no barrier in between.
//
// Steps beyond an array in global memory are the address sanitizer's to find.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace emulation {

constexpr int warp_size = 32;
constexpr int exit_code = 86;

[[noreturn]] void fail(const std::string& what);

// The order of threads and blocks is drawn from this.
void set_seed(uint64_t seed);

// Names of the kernels launched since the last call, in order.
std::vector<std::string> take_launches();

// Where in the source a thread waits.
struct Place {
  const char* file;
  int line;
};

enum class WarpCall { sync, shuffle, ballot };

// Who touched an element of shared memory, and when: the block's and the warp's number of
// synchronisations so far.
struct Shadow {
  int writer = -1;
  int64_t write_epoch = 0, write_warp_epoch = 0;
  int reader_warp = -1;
  unsigned reader_lanes = 0;
  bool many_warps_read = false;
  int64_t read_epoch = 0, read_warp_epoch = 0;
};

// An array in shared memory.
struct SharedArray {
  size_t element_size, count;
  std::vector<unsigned char> bytes;
  std::vector<Shadow> shadows;

  void on_read(size_t i);
  void on_write(size_t i);
};

// What a running thread asks for.
SharedArray& shared_array(int order, size_t element_size, size_t count);
void barrier(Place place);
// The `bits` of lane `from`, or for a ballot those of each lane's truth.
uint64_t warp_call(WarpCall call, Place place, unsigned mask, uint64_t bits, int from);

// The shared memory that a block may have, that of an H100 if nothing else is set. The blocks of a
// kernel have 48 KiB at most if they are not allowed all.
int64_t most_shared_bytes();
void set_most_shared_bytes(int64_t bytes);
void allow_shared_bytes(const char* kernel);

struct Launch {
  const char* name;
  int64_t blocks_x, blocks_y;
  int threads;
  int64_t shared_bytes;
  const void* kernel;
  void (*run)(const void* kernel, const Launch&, int64_t block_x, int64_t block_y, int thread);
};
void run(const Launch& launch);

}  // namespace emulation
