#include "emulator.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <set>

// The address sanitizer's, null where the program is built without it.
extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom,
                                                          size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom,
                                                           size_t* size);
}

namespace emulation {
namespace {

constexpr size_t stack_size = 128 * 1024;
constexpr int64_t usual_shared_bytes = 48 * 1024;  // without asking the driver for more
constexpr int most_threads = 1024;                 // of a block
constexpr int multiprocessors = 132;

enum class State { ready, at_barrier, in_warp_call, gone };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[stack_size]};
  void* sanitizer_stack = nullptr;
  State state = State::gone;
  Place place{};
  uint64_t result = 0;
};

struct Warp {
  WarpCall call{};
  Place place{};
  unsigned mask = 0, arrived = 0;
  uint64_t bits[warp_size];
  int from[warp_size];
  int64_t epoch = 0;
};

// Threads that wait for each other in one place.
struct Meeting {
  int arrived = 0;
  Place place{};
};

struct Block {
  int64_t x = 0, y = 0;
  Meeting barrier;
  int in_cluster_barrier = 0, gone = 0;
  int64_t epoch = 0;
  int64_t read_elsewhere = -1;  // when another block read this one's memory last
  std::vector<Warp> warps;
  std::vector<std::unique_ptr<SharedArray>> arrays;
  int64_t shared_bytes = 0;
};

// The C library's own: the address sanitizer's wrapper forgets all it knows about both stacks at
// every switch, which takes most of the time and is not needed where switches are announced to it.
using SwapContext = int (*)(ucontext_t*, const ucontext_t*);
SwapContext own_swapcontext() {
  void* library = dlopen("libc.so.6", RTLD_LAZY);
  void* function = library ? dlsym(library, "swapcontext") : nullptr;
  return function ? reinterpret_cast<SwapContext>(function) : &swapcontext;
}

struct Emulator {
  const SwapContext swap = own_swapcontext();
  std::mt19937_64 random{1};
  std::vector<std::string> launches;
  int64_t most_shared_bytes = 227 * 1024;
  int largest_cluster = 8;
  std::set<std::string> allowed_shared_bytes;
  std::vector<std::unique_ptr<Fiber>> fibers;
  ucontext_t scheduler;
  void* scheduler_sanitizer_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;
  // Of the running cluster, whose threads are the blocks' one after the other:
  const Launch* launch = nullptr;
  std::vector<Block> blocks;
  std::vector<int> ready;
  Meeting cluster_barrier;
  int gone = 0;
  int64_t epoch = 0;
  // Of the running thread: its number in the cluster, and in its block.
  int current = -1, thread = -1;
  Block* block = nullptr;

  int threads() const { return launch->threads * int(blocks.size()); }
};

Emulator& emulator() {
  static Emulator instance;
  return instance;
}

std::string text(Place place) {
  const std::string file = place.file;
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(place.line);
}

bool same(Place a, Place b) { return a.line == b.line && std::string(a.file) == b.file; }

std::string demangled(const char* name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return text ? text.get() : name;
}

void announce_switch(void** sanitizer_stack, const void* bottom, size_t size) {
  if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(sanitizer_stack, bottom, size);
}

void confirm_switch(void* sanitizer_stack, const void** bottom, size_t* size) {
  if (__sanitizer_finish_switch_fiber) {
    __sanitizer_finish_switch_fiber(sanitizer_stack, bottom, size);
  }
}

void switch_to_scheduler() {
  Emulator& e = emulator();
  Fiber& fiber = *e.fibers[e.current];
  announce_switch(&fiber.sanitizer_stack, e.scheduler_stack, e.scheduler_stack_size);
  e.swap(&fiber.context, &e.scheduler);
  confirm_switch(fiber.sanitizer_stack, nullptr, nullptr);
}

void leave() {
  Emulator& e = emulator();
  Block& block = *e.block;
  e.fibers[e.current]->state = State::gone;
  ++block.gone;
  ++e.gone;
  for (const Meeting& meeting : {block.barrier, e.cluster_barrier}) {
    if (meeting.arrived == 0) continue;
    fail("barrier divergence: thread " + std::to_string(e.thread) +
         " returned while others wait at " + text(meeting.place));
  }
  if (block.read_elsewhere == e.epoch) fail("a block ends while another may read its memory");
}

// A fibre serves the same thread of one block after another.
void fiber_main() {
  Emulator& e = emulator();
  confirm_switch(nullptr, &e.scheduler_stack, &e.scheduler_stack_size);
  for (;;) {
    const Launch& launch = *e.launch;
    launch.run(launch.kernel, launch, e.block->x, e.block->y, e.thread);
    leave();
    switch_to_scheduler();
  }
}

void switch_to_fiber(int index) {
  Emulator& e = emulator();
  e.current = index;
  e.thread = index % e.launch->threads;
  e.block = &e.blocks[size_t(index / e.launch->threads)];
  Fiber& fiber = *e.fibers[index];
  announce_switch(&e.scheduler_sanitizer_stack, fiber.stack.get(), stack_size);
  e.swap(&e.scheduler, &fiber.context);
  confirm_switch(e.scheduler_sanitizer_stack, nullptr, nullptr);
  e.current = e.thread = -1;
  e.block = nullptr;
}

void make_fibers(int count) {
  Emulator& e = emulator();
  while (int(e.fibers.size()) < count) {
    auto fiber = std::make_unique<Fiber>();
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.get();
    fiber->context.uc_stack.ss_size = stack_size;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, fiber_main, 0);
    e.fibers.push_back(std::move(fiber));
  }
}

void make_ready(int thread) {
  Emulator& e = emulator();
  e.fibers[thread]->state = State::ready;
  e.ready.push_back(thread);
}

std::string waiting(const Meeting& meeting, int threads) {
  return "deadlock at barrier " + text(meeting.place) + ": " + std::to_string(meeting.arrived) +
         " of " + std::to_string(threads) + " threads arrived";
}

[[noreturn]] void report_deadlock() {
  Emulator& e = emulator();
  for (int i = 0; i < e.threads(); ++i) {
    const Fiber& fiber = *e.fibers[i];
    if (fiber.state != State::in_warp_call) continue;
    const int number = i % e.launch->threads / warp_size;
    const Warp& warp = e.blocks[size_t(i / e.launch->threads)].warps[size_t(number)];
    char lanes[64];
    std::snprintf(lanes, sizeof lanes, "%08x of %08x", warp.arrived, warp.mask);
    fail("deadlock: warp " + std::to_string(number) + " waits at " + text(fiber.place) +
         ", lanes " + lanes + " arrived");
  }
  for (const Block& block : e.blocks) {
    if (block.barrier.arrived > 0) fail(waiting(block.barrier, e.launch->threads));
  }
  fail(waiting(e.cluster_barrier, e.threads()));
}

// The blocks from (x, y) on.
void run_cluster(int64_t x, int64_t y) {
  Emulator& e = emulator();
  e.blocks.clear();
  e.blocks.resize(size_t(e.launch->cluster));
  for (Block& block : e.blocks) {
    block.x = x++;
    block.y = y;
    block.warps.assign(size_t(e.launch->threads / warp_size), Warp());
  }
  e.cluster_barrier.arrived = e.gone = 0;
  e.epoch = 0;
  e.ready.clear();
  for (int i = 0; i < e.threads(); ++i) make_ready(i);
  while (e.gone < e.threads()) {
    if (e.ready.empty()) report_deadlock();
    std::swap(e.ready[e.random() % e.ready.size()], e.ready.back());
    const int next = e.ready.back();
    e.ready.pop_back();
    switch_to_fiber(next);
  }
}

// x towards zero, to a multiple of the last bit that a float of this exponent has.
double truncated(double x, int exponent) {
  const double unit = std::ldexp(1.0, exponent - 24);
  return std::isfinite(x) ? std::trunc(x / unit) * unit : x;
}

// c + Σ x, as badly as a device may add: after bringing all to the largest exponent, without a bit
// more than a float has.
double aligned_sum(double c, const double (&x)[4]) {
  int largest = -1000, exponent = 0;
  for (const double term : {c, x[0], x[1], x[2], x[3]}) {
    std::frexp(term, &exponent);
    if (term != 0 && std::isfinite(term)) largest = std::max(largest, exponent);
  }
  double sum = truncated(c, largest);
  for (const double term : x) sum += truncated(term, largest);
  std::frexp(sum, &exponent);
  return truncated(sum, exponent);
}

void check_tf32(const Warp& warp, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (!std::isnan(x) && (bits & 0x1fff) != 0) {
    fail("product at " + text(warp.place) + ": a factor is no TF32");
  }
}

// Where the lanes have the elements: see simt.h.
void multiply(const Warp& warp) {
  float a[16][8], b[8][8];
  const auto fragments = [&](int lane) -> Fragments& {
    return *reinterpret_cast<Fragments*>(warp.bits[lane]);
  };
  for (int lane = 0; lane < warp_size; ++lane) {
    const Fragments& f = fragments(lane);
    for (const float x : f.a) check_tf32(warp, x);
    for (const float x : f.b) check_tf32(warp, x);
    for (int j = 0; j < 4; ++j) a[lane / 4 + j % 2 * 8][lane % 4 + j / 2 * 4] = f.a[j];
    for (int j = 0; j < 2; ++j) b[lane % 4 + j * 4][lane / 4] = f.b[j];
  }
  for (int lane = 0; lane < warp_size; ++lane) {
    for (int j = 0; j < 4; ++j) {
      const int row = lane / 4 + j / 2 * 8, column = lane % 4 * 2 + j % 2;
      double sum = double(fragments(lane).c[j]);
      for (int k = 0; k < 8; k += 4) {  // as many as the smallest shape of a product has
        double x[4];
        for (int i = 0; i < 4; ++i) x[i] = double(a[row][k + i]) * double(b[k + i][column]);
        sum = aligned_sum(sum, x);
      }
      fragments(lane).c[j] = float(sum);
    }
  }
}

void complete(Warp& warp, int first_thread) {
  Emulator& e = emulator();
  if (warp.call == WarpCall::product) multiply(warp);
  uint64_t votes = 0;
  for (int lane = 0; lane < warp_size; ++lane) {
    if (warp.mask >> lane & 1 && warp.bits[lane]) votes |= uint64_t(1) << lane;
  }
  for (int lane = 0; lane < warp_size; ++lane) {
    if (!(warp.mask >> lane & 1)) continue;
    const int from = warp.from[lane];
    if (warp.call == WarpCall::shuffle && !(warp.mask >> from & 1)) {
      fail("shuffle at " + text(warp.place) + ": lane " + std::to_string(lane) +
           " reads from lane " + std::to_string(from) + ", which is not in the mask");
    }
    e.fibers[first_thread + lane]->result = warp.call == WarpCall::ballot ? votes : warp.bits[from];
    make_ready(first_thread + lane);
  }
  if (warp.call == WarpCall::sync) ++warp.epoch;
  warp.arrived = 0;
}

}  // namespace

void fail(const std::string& what) {
  const Emulator& e = emulator();
  std::fprintf(stderr, "emulation: %s", what.c_str());
  if (e.launch && e.block) {
    std::fprintf(stderr, "\n  in block (%lld, %lld), thread %d of %s",
                 static_cast<long long>(e.block->x), static_cast<long long>(e.block->y), e.thread,
                 demangled(e.launch->name).c_str());
  }
  std::fprintf(stderr, "\n");
  std::fflush(nullptr);
  _exit(exit_code);
}

void set_seed(uint64_t seed) { emulator().random.seed(seed); }

int64_t most_shared_bytes() { return emulator().most_shared_bytes; }

void set_most_shared_bytes(int64_t bytes) { emulator().most_shared_bytes = bytes; }

void set_largest_cluster(int blocks) { emulator().largest_cluster = blocks; }

int clusters_at_once(int size) {
  return size <= emulator().largest_cluster ? multiprocessors / size : 0;
}

void allow_shared_bytes(const char* kernel) { emulator().allowed_shared_bytes.insert(kernel); }

std::vector<std::string> take_launches() {
  std::vector<std::string> names;
  names.swap(emulator().launches);
  return names;
}

SharedArray& shared_array(int order, size_t element_size, size_t count) {
  Emulator& e = emulator();
  Block& block = *e.block;
  if (order == int(block.arrays.size())) {
    block.arrays.emplace_back(new SharedArray{
        int(block.x % e.launch->cluster), order, block.shared_bytes, element_size, count,
        std::vector<unsigned char>(element_size * count, 0xff), std::vector<Shadow>(count)});
    block.shared_bytes += int64_t(element_size * count + 15) / 16 * 16;
    if (block.shared_bytes > e.launch->shared_bytes) {
      fail("shared memory: the arrays take " + std::to_string(block.shared_bytes) +
           " bytes, launched with " + std::to_string(e.launch->shared_bytes));
    }
  }
  SharedArray& array = *block.arrays.at(size_t(order));
  if (array.element_size != element_size || array.count != count) {
    fail("shared memory: threads ask for different arrays");
  }
  return array;
}

SharedArray& shared_array_of(int rank, const SharedArray& own) {
  Emulator& e = emulator();
  if (rank < 0 || rank >= int(e.blocks.size())) {
    fail("shared memory of block " + std::to_string(rank) + " of a cluster of " +
         std::to_string(e.blocks.size()));
  }
  const Block& other = e.blocks[size_t(rank)];
  if (own.order >= int(other.arrays.size()))
    fail("shared memory: another block may have no array yet");
  SharedArray& array = *other.arrays[size_t(own.order)];
  if (array.begin != own.begin || array.element_size != own.element_size ||
      array.count != own.count) {
    fail("shared memory: blocks ask for different arrays");
  }
  return array;
}

void SharedArray::on_read(size_t i) {
  const Emulator& e = emulator();
  if (i >= count) {
    fail("shared memory: element " + std::to_string(i) + " of " + std::to_string(count));
  }
  if (&e.blocks[size_t(block)] != e.block) return on_read_elsewhere(i);
  Shadow& s = shadows[i];
  const int warp = e.thread / warp_size;
  const int64_t warp_epoch = e.block->warps[size_t(warp)].epoch;
  if (s.writer < 0) fail("shared memory: element " + std::to_string(i) + " was never written");
  const bool ordered = s.writer == e.thread || s.write_epoch < e.block->epoch ||
                       (s.writer / warp_size == warp && s.write_warp_epoch < warp_epoch);
  if (!ordered) {
    fail("shared memory: race on element " + std::to_string(i) + ", written by thread " +
         std::to_string(s.writer));
  }
  if (s.read_epoch != e.block->epoch || s.reader_warp < 0) {
    s.many_warps_read = false;
    s.reader_lanes = 0;
  } else if (s.reader_warp != warp) {
    s.many_warps_read = true;
  }
  if (s.reader_warp != warp || s.read_warp_epoch != warp_epoch) s.reader_lanes = 0;
  s.reader_warp = warp;
  s.reader_lanes |= 1u << e.thread % warp_size;
  s.read_epoch = e.block->epoch;
  s.read_warp_epoch = warp_epoch;
}

// Only barriers of the cluster are between the threads of two blocks.
void SharedArray::on_read_elsewhere(size_t i) {
  Emulator& e = emulator();
  Block& owner = e.blocks[size_t(block)];
  Shadow& s = shadows[i];
  const auto wrong = [&](const std::string& what) {
    fail(what + ": element " + std::to_string(i) + " of block " + std::to_string(block));
  };
  if (owner.gone > 0) wrong("a block ends while another may read its memory");
  if (s.writer < 0) wrong("shared memory: never written");
  if (s.write_cluster_epoch == e.epoch) {
    wrong("shared memory: written since the last barrier of the cluster, a race");
  }
  s.read_elsewhere = owner.read_elsewhere = e.epoch;
}

void SharedArray::on_write(size_t i) {
  const Emulator& e = emulator();
  if (i >= count) {
    fail("shared memory: element " + std::to_string(i) + " of " + std::to_string(count));
  }
  if (&e.blocks[size_t(block)] != e.block) fail("shared memory: written by another block");
  Shadow& s = shadows[i];
  const int warp = e.thread / warp_size;
  const int64_t warp_epoch = e.block->warps[size_t(warp)].epoch;
  const bool after_write = s.writer < 0 || s.writer == e.thread || s.write_epoch < e.block->epoch ||
                           (s.writer / warp_size == warp && s.write_warp_epoch < warp_epoch);
  const unsigned others = s.reader_lanes & ~(1u << e.thread % warp_size);
  const bool after_reads = s.reader_warp < 0 || s.read_epoch < e.block->epoch ||
                           (!s.many_warps_read && s.reader_warp == warp &&
                            (others == 0 || s.read_warp_epoch < warp_epoch));
  if (!after_write || !after_reads) {
    fail("shared memory: race on element " + std::to_string(i) + ", " +
         (after_write ? "read" : "written") + " by another thread");
  }
  if (s.read_elsewhere == e.epoch) {
    fail("shared memory: race on element " + std::to_string(i) + ", read by another block");
  }
  s.writer = e.thread;
  s.write_epoch = e.block->epoch;
  s.write_warp_epoch = warp_epoch;
  s.write_cluster_epoch = e.epoch;
}

namespace {

// The running thread comes to a meeting. True if it is the last of so many.
bool arrive(Meeting& meeting, Place place, int threads) {
  if (meeting.arrived > 0 && !same(place, meeting.place)) {
    fail("barrier divergence: threads wait at " + text(meeting.place) + " and at " + text(place));
  }
  meeting.place = place;
  if (++meeting.arrived < threads) return false;
  meeting.arrived = 0;
  return true;
}

}  // namespace

void barrier(Place place) {
  Emulator& e = emulator();
  Block& block = *e.block;
  if (block.gone > 0) fail("barrier divergence: a thread returned before " + text(place));
  if (block.in_cluster_barrier > 0) {
    fail("barrier divergence: threads wait at " + text(e.cluster_barrier.place) + " and at " +
         text(place));
  }
  e.fibers[e.current]->state = State::at_barrier;
  if (arrive(block.barrier, place, e.launch->threads)) {
    ++block.epoch;
    const int first = e.current - e.thread;
    for (int i = 0; i < e.launch->threads; ++i) make_ready(first + i);
  }
  switch_to_scheduler();
}

// A barrier of each block as well.
void cluster_barrier(Place place) {
  Emulator& e = emulator();
  if (e.gone > 0) fail("barrier divergence: a thread returned before " + text(place));
  if (e.block->barrier.arrived > 0) {
    fail("barrier divergence: threads wait at " + text(e.block->barrier.place) + " and at " +
         text(place));
  }
  e.fibers[e.current]->state = State::at_barrier;
  ++e.block->in_cluster_barrier;
  if (arrive(e.cluster_barrier, place, e.threads())) {
    ++e.epoch;
    for (Block& block : e.blocks) {
      ++block.epoch;
      block.in_cluster_barrier = 0;
    }
    for (int i = 0; i < e.threads(); ++i) make_ready(i);
  }
  switch_to_scheduler();
}

uint64_t warp_call(WarpCall call, Place place, unsigned mask, uint64_t bits, int from) {
  Emulator& e = emulator();
  const int lane = e.thread % warp_size, first_thread = e.current - lane;
  Warp& warp = e.block->warps[size_t(e.thread / warp_size)];
  if (!(mask >> lane & 1)) {
    fail("warp call at " + text(place) + ": lane " + std::to_string(lane) + " is not in its mask");
  }
  if (warp.arrived == 0) {
    warp.call = call;
    warp.place = place;
    warp.mask = mask;
  } else if (!same(warp.place, place)) {
    fail("lanes of a warp meet in different calls: " + text(warp.place) + " and " + text(place));
  } else if (warp.mask != mask) {
    fail("lanes of a warp meet at " + text(place) + " with different masks");
  }
  warp.arrived |= 1u << lane;
  warp.bits[lane] = bits;
  warp.from[lane] = from;
  Fiber& fiber = *e.fibers[e.current];
  fiber.state = State::in_warp_call;
  fiber.place = place;
  if (warp.arrived == mask) complete(warp, first_thread);
  switch_to_scheduler();
  return fiber.result;
}

void run(const Launch& launch) {
  Emulator& e = emulator();
  e.launches.push_back(demangled(launch.name));
  e.launch = &launch;
  if (launch.threads % warp_size != 0 || launch.threads > most_threads) fail("threads of a block");
  const int64_t most =
      e.allowed_shared_bytes.count(launch.name) ? e.most_shared_bytes : usual_shared_bytes;
  if (launch.shared_bytes > most) fail("too much shared memory");
  if (launch.blocks_x > 0x7fffffff || launch.blocks_y > 0xffff) fail("too many blocks");
  if (launch.cluster > e.largest_cluster || launch.blocks_x % launch.cluster != 0) {
    fail("clusters of " + std::to_string(launch.cluster) + " blocks");
  }
  make_fibers(launch.threads * launch.cluster);
  const int64_t clusters = launch.blocks_x / launch.cluster;
  std::vector<int64_t> order(size_t(clusters * launch.blocks_y));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), e.random);
  for (const int64_t i : order) run_cluster(i % clusters * launch.cluster, i / clusters);
  e.launch = nullptr;
}

}  // namespace emulation
