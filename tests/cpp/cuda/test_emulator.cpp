// The emulator finds what it is for: each kernel here is a right one with one mistake, runs in a
// process of its own, and has to end it with the right message.
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "device.h"

namespace {

using namespace pymlp::cuda;

enum class Mistake {
  none,
  no_barrier,
  barrier_in_branch,
  early_return,
  other_mask,
  absent_lane,
  lane_outside_mask,
  past_the_row,
  no_tail,
  past_shared,
  too_much_shared,
  unwritten_shared,
  waits_for_ever,
};

// out[row] = sum of x (rows, width), one block a row.
template <Mistake mistake>
struct RowSums {
  static constexpr int threads = 64;
  int width;
  const float* x;
  float* out;

  PYMLP_DEVICE void operator()(Thread& t) const {
    if (mistake == Mistake::early_return && t.warp == 1) return;
    const int end = mistake == Mistake::past_the_row ? width + 1
                    : mistake == Mistake::no_tail    ? width / 4 * 4
                                                     : width;
    float sum = 0;
    for (int i = t.thread; i < end; i += t.threads) sum += x[t.block * width + i];
    sum = warp_sum(t, sum);
    const int count = mistake == Mistake::past_shared ? 1 : 2;
    Shared<float> sums = t.shared<float>(count);
    if (t.lane == 0 && !(mistake == Mistake::unwritten_shared && t.warp == 1)) sums[t.warp] = sum;
    if (mistake == Mistake::too_much_shared) t.shared<float>(2);
    if (mistake == Mistake::barrier_in_branch && t.warp == 0) {
      t.barrier();
    } else if (mistake == Mistake::barrier_in_branch) {
      t.barrier();
    } else if (mistake != Mistake::no_barrier) {
      t.barrier();
    }
    const float first = sums[0], second = sums[1];
    if (t.thread == 0) out[t.block] = first + second;
  }

  static PYMLP_DEVICE float warp_sum(Thread& t, float sum) {
    unsigned mask = all_lanes;
    if (mistake == Mistake::other_mask && t.lane < 16) mask = 0xffffu;
    if (mistake == Mistake::lane_outside_mask) mask = 0xffffu;
    if (mistake == Mistake::lane_outside_mask && t.lane >= 16) return sum;
    if (mistake == Mistake::absent_lane && t.thread == 7) return sum;
    for (int distance = 16; distance > 0; distance /= 2) {
      sum += t.shuffle_xor(sum, distance, mask);
    }
    if (mistake == Mistake::waits_for_ever && t.thread == 40) t.sync_warp();
    return sum;
  }
};

// Its result depends on the order of blocks.
struct InOrderOfArrival {
  static constexpr int threads = 32;
  float* sum;
  PYMLP_DEVICE void operator()(Thread& t) const {
    if (t.thread == 0) *sum += 1.0f / (1.0f + float(t.block));
  }
};

// Threads of two warps write what the other reads, without a barrier after the reading.
struct WriteAfterRead {
  static constexpr int threads = 64;
  float* out;
  PYMLP_DEVICE void operator()(Thread& t) const {
    Shared<float> x = t.shared<float>(64);
    x[t.thread] = float(t.thread);
    t.barrier();
    const float other = x[63 - t.thread];
    x[t.thread] = other;
    out[t.thread] = other;
  }
};

constexpr int rows = 3, width = 71;

template <Mistake mistake>
bool sums_are_right() {
  std::vector<float> x(rows * width);
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(i % 7);
  const device::Array<float> in(x), out(rows);
  const device::TestQueue queue;
  launch(queue, {rows}, RowSums<mistake>{width, in.data(), out.data()}, 16);
  const std::vector<float> got = out.values();
  for (int row = 0; row < rows; ++row) {
    float sum = 0;
    for (int i = 0; i < width; ++i) sum += x[row * width + i];
    if (got[row] != sum) return false;
  }
  return true;
}

// What a child process says on stderr, and its exit code after it.
std::string outcome(const std::function<bool()>& body) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    _exit(body() ? 0 : 1);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, size_t(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return text + " exit " + std::to_string(WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

void fails_with(const std::string& message, const std::function<bool()>& body) {
  const std::string got = outcome(body);
  const bool right =
      got.find(message) != std::string::npos && got.find("exit 0") == std::string::npos;
  if (!CHECK(right))
    std::cerr << "  expected " << message << ", got " << got.substr(0, 600) << "\n";
}

float sum_in_order_of_arrival(uint64_t seed) {
  emulation::set_seed(seed);
  const device::Array<float> sum(std::vector<float>{0.0f});
  const device::TestQueue queue;
  launch(queue, {1000}, InOrderOfArrival{sum.data()});
  return sum.values()[0];
}

}  // namespace

TEST(emulator_runs_a_right_kernel) { CHECK(sums_are_right<Mistake::none>()); }

TEST(emulator_finds_a_missing_barrier) {
  // Whichever comes first: the other warp's sum is not there yet, or it may not be.
  fails_with("shared memory: ", sums_are_right<Mistake::no_barrier>);
  fails_with("race on element", [] {
    const device::Array<float> out(64);
    launch(device::TestQueue(), {1}, WriteAfterRead{out.data()}, 256);
    return true;
  });
}

TEST(emulator_finds_diverging_barriers) {
  fails_with("barrier divergence: threads wait at", sums_are_right<Mistake::barrier_in_branch>);
  fails_with("barrier divergence: ", sums_are_right<Mistake::early_return>);
}

TEST(emulator_finds_lanes_that_do_not_meet) {
  fails_with("with different masks", sums_are_right<Mistake::other_mask>);
  fails_with("which is not in the mask", sums_are_right<Mistake::lane_outside_mask>);
  fails_with("deadlock: warp 0 waits", sums_are_right<Mistake::absent_lane>);
  fails_with("deadlock: warp 1 waits", sums_are_right<Mistake::waits_for_ever>);
}

TEST(emulator_finds_steps_beyond_an_array) {
  fails_with("heap-buffer-overflow", sums_are_right<Mistake::past_the_row>);
  fails_with("element 1 of 1", sums_are_right<Mistake::past_shared>);
  fails_with("arrays take 32 bytes, launched with 16", sums_are_right<Mistake::too_much_shared>);
}

TEST(emulator_finds_elements_that_nobody_wrote) {
  fails_with("was never written", sums_are_right<Mistake::unwritten_shared>);
}

TEST(a_dropped_tail_changes_the_result) { fails_with("exit 1", sums_are_right<Mistake::no_tail>); }

TEST(seeds_change_the_order) {
  CHECK(sum_in_order_of_arrival(1) != sum_in_order_of_arrival(2));
  CHECK_EQ(sum_in_order_of_arrival(1), sum_in_order_of_arrival(1));
}
