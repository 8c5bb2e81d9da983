#include "emulator.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
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
  std::set<std::string> allowed_shared_bytes;
  std::vector<std::unique_ptr<Fiber>> fibers;
  ucontext_t scheduler;
  void* scheduler_sanitizer_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;
  // Of the running block:
  const Launch* launch = nullptr;
  int64_t block_x = 0, block_y = 0;
  int current = -1;
  std::vector<int> ready;
  int at_barrier = 0, gone = 0;
  Place barrier_place{};
  int64_t epoch = 0;
  std::vector<Warp> warps;
  std::vector<std::unique_ptr<SharedArray>> arrays;
  int64_t shared_bytes = 0;
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

// A fibre serves the same thread of one block after another.
void fiber_main() {
  Emulator& e = emulator();
  confirm_switch(nullptr, &e.scheduler_stack, &e.scheduler_stack_size);
  for (;;) {
    const Launch& launch = *e.launch;
    launch.run(launch.kernel, launch, e.block_x, e.block_y, e.current);
    e.fibers[e.current]->state = State::gone;
    ++e.gone;
    if (e.at_barrier > 0) {
      fail("barrier divergence: thread " + std::to_string(e.current) +
           " returned while others wait at " + text(e.barrier_place));
    }
    switch_to_scheduler();
  }
}

void switch_to_fiber(int index) {
  Emulator& e = emulator();
  e.current = index;
  Fiber& fiber = *e.fibers[index];
  announce_switch(&e.scheduler_sanitizer_stack, fiber.stack.get(), stack_size);
  e.swap(&e.scheduler, &fiber.context);
  confirm_switch(e.scheduler_sanitizer_stack, nullptr, nullptr);
  e.current = -1;
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

[[noreturn]] void report_deadlock() {
  Emulator& e = emulator();
  for (int i = 0; i < e.launch->threads; ++i) {
    const Fiber& fiber = *e.fibers[i];
    if (fiber.state != State::in_warp_call) continue;
    const Warp& warp = e.warps[i / warp_size];
    char lanes[64];
    std::snprintf(lanes, sizeof lanes, "%08x of %08x", warp.arrived, warp.mask);
    fail("deadlock: warp " + std::to_string(i / warp_size) + " waits at " + text(fiber.place) +
         ", lanes " + lanes + " arrived");
  }
  fail("deadlock at barrier " + text(e.barrier_place) + ": " + std::to_string(e.at_barrier) +
       " of " + std::to_string(e.launch->threads) + " threads arrived");
}

void run_block() {
  Emulator& e = emulator();
  e.arrays.clear();
  e.warps.assign(e.launch->threads / warp_size, Warp());
  e.shared_bytes = e.epoch = e.at_barrier = e.gone = 0;
  e.ready.clear();
  for (int i = 0; i < e.launch->threads; ++i) make_ready(i);
  while (e.gone < e.launch->threads) {
    if (e.ready.empty()) report_deadlock();
    std::swap(e.ready[e.random() % e.ready.size()], e.ready.back());
    const int next = e.ready.back();
    e.ready.pop_back();
    switch_to_fiber(next);
  }
}

void complete(Warp& warp, int first_thread) {
  Emulator& e = emulator();
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
  if (e.launch && e.current >= 0) {
    std::fprintf(stderr, "\n  in block (%lld, %lld), thread %d of %s",
                 static_cast<long long>(e.block_x), static_cast<long long>(e.block_y), e.current,
                 demangled(e.launch->name).c_str());
  }
  std::fprintf(stderr, "\n");
  std::fflush(nullptr);
  _exit(exit_code);
}

void set_seed(uint64_t seed) { emulator().random.seed(seed); }

int64_t most_shared_bytes() { return emulator().most_shared_bytes; }

void set_most_shared_bytes(int64_t bytes) { emulator().most_shared_bytes = bytes; }

void allow_shared_bytes(const char* kernel) { emulator().allowed_shared_bytes.insert(kernel); }

std::vector<std::string> take_launches() {
  std::vector<std::string> names;
  names.swap(emulator().launches);
  return names;
}

SharedArray& shared_array(int order, size_t element_size, size_t count) {
  Emulator& e = emulator();
  if (order == int(e.arrays.size())) {
    e.arrays.emplace_back(new SharedArray{element_size, count,
                                          std::vector<unsigned char>(element_size * count, 0xff),
                                          std::vector<Shadow>(count)});
    e.shared_bytes += int64_t(element_size * count + 15) / 16 * 16;
    if (e.shared_bytes > e.launch->shared_bytes) {
      fail("shared memory: the arrays take " + std::to_string(e.shared_bytes) +
           " bytes, launched with " + std::to_string(e.launch->shared_bytes));
    }
  }
  SharedArray& array = *e.arrays.at(order);
  if (array.element_size != element_size || array.count != count) {
    fail("shared memory: threads ask for different arrays");
  }
  return array;
}

void SharedArray::on_read(size_t i) {
  const Emulator& e = emulator();
  if (i >= count) {
    fail("shared memory: element " + std::to_string(i) + " of " + std::to_string(count));
  }
  Shadow& s = shadows[i];
  const int warp = e.current / warp_size;
  const int64_t warp_epoch = e.warps[warp].epoch;
  if (s.writer < 0) fail("shared memory: element " + std::to_string(i) + " was never written");
  const bool ordered = s.writer == e.current || s.write_epoch < e.epoch ||
                       (s.writer / warp_size == warp && s.write_warp_epoch < warp_epoch);
  if (!ordered) {
    fail("shared memory: race on element " + std::to_string(i) + ", written by thread " +
         std::to_string(s.writer));
  }
  if (s.read_epoch != e.epoch || s.reader_warp < 0) {
    s.many_warps_read = false;
    s.reader_lanes = 0;
  } else if (s.reader_warp != warp) {
    s.many_warps_read = true;
  }
  if (s.reader_warp != warp || s.read_warp_epoch != warp_epoch) s.reader_lanes = 0;
  s.reader_warp = warp;
  s.reader_lanes |= 1u << e.current % warp_size;
  s.read_epoch = e.epoch;
  s.read_warp_epoch = warp_epoch;
}

void SharedArray::on_write(size_t i) {
  const Emulator& e = emulator();
  if (i >= count) {
    fail("shared memory: element " + std::to_string(i) + " of " + std::to_string(count));
  }
  Shadow& s = shadows[i];
  const int warp = e.current / warp_size;
  const int64_t warp_epoch = e.warps[warp].epoch;
  const bool after_write = s.writer < 0 || s.writer == e.current || s.write_epoch < e.epoch ||
                           (s.writer / warp_size == warp && s.write_warp_epoch < warp_epoch);
  const unsigned others = s.reader_lanes & ~(1u << e.current % warp_size);
  const bool after_reads = s.reader_warp < 0 || s.read_epoch < e.epoch ||
                           (!s.many_warps_read && s.reader_warp == warp &&
                            (others == 0 || s.read_warp_epoch < warp_epoch));
  if (!after_write || !after_reads) {
    fail("shared memory: race on element " + std::to_string(i) + ", " +
         (after_write ? "read" : "written") + " by another thread");
  }
  s.writer = e.current;
  s.write_epoch = e.epoch;
  s.write_warp_epoch = warp_epoch;
}

void barrier(Place place) {
  Emulator& e = emulator();
  if (e.at_barrier > 0 && !same(place, e.barrier_place)) {
    fail("barrier divergence: threads wait at " + text(e.barrier_place) + " and at " + text(place));
  }
  if (e.gone > 0) fail("barrier divergence: a thread returned before " + text(place));
  e.barrier_place = place;
  e.fibers[e.current]->state = State::at_barrier;
  if (++e.at_barrier == e.launch->threads) {
    e.at_barrier = 0;
    ++e.epoch;
    for (int i = 0; i < e.launch->threads; ++i) make_ready(i);
  }
  switch_to_scheduler();
}

uint64_t warp_call(WarpCall call, Place place, unsigned mask, uint64_t bits, int from) {
  Emulator& e = emulator();
  const int lane = e.current % warp_size, first_thread = e.current - lane;
  Warp& warp = e.warps[e.current / warp_size];
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
  make_fibers(launch.threads);
  std::vector<int64_t> order(launch.blocks_x * launch.blocks_y);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), e.random);
  for (const int64_t block : order) {
    e.block_x = block % launch.blocks_x;
    e.block_y = block / launch.blocks_x;
    run_block();
  }
  e.launch = nullptr;
}

}  // namespace emulation
