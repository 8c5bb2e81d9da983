// The engine's own threads: they live as long as the Team, which is one call of the engine, and
// pass from phase to phase through barriers that cost a fraction of a microsecond.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/profile.h"
#include "kernels/parallel.h"

namespace pymlp {

// Each phase is cut into one range a thread, after a long one that may stop has been cut into
// portions. A thread that waits spins for a while, then lets
// others run, then sleeps. The calling thread takes over the ranges that no other thread has begun,
// so that it never waits for a thread which the machine has no core for.
// Phases are computed without subnormal numbers, by all threads: see FlushSubnormals.
class Team final : public Parallel {
 public:
  // threads: how many compute, the calling one included. before_phase: called by the calling thread
  // where a phase may stop, every few hundred microseconds of work and at least every few ten
  // milliseconds; may throw to abandon the kernel.
  // profile: gets the time of each phase; may be null.
  explicit Team(int threads, std::function<void()> before_phase = nullptr,
                Profile* profile = nullptr);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  void run(const Phase& phase, RangeBody body) const override;

 private:
  // The last job whose range of this thread somebody has claimed.
  struct alignas(64) Slot {
    std::atomic<uint64_t> claimed{0};
  };

  // The job that all threads work on, in one cache line: a thread that sees its number has all of
  // it. The other members are written only while no thread holds a range. Threads that hold one
  // read them.
  struct alignas(64) Job {
    std::atomic<uint64_t> number{0};
    int64_t total = 0;
    RangeBody body;
  };
  static_assert(sizeof(Job) == 64);

  void check_in(int64_t work) const;
  void run_portion(int64_t total, int64_t cost, const RangeBody& body) const;
  void run_together(int64_t total, const RangeBody& body) const;
  void run_range(int slot) const;
  void claim_and_run(int slot, uint64_t job) const;
  void work(int slot);
  bool wait_for_job(uint64_t done);
  void wake_sleepers() const;

  const int threads_;
  const std::function<void()> before_phase_;
  Profile* const profile_;
  mutable int64_t unchecked_work_ = 0;

  mutable Job job_;
  mutable std::unique_ptr<Slot[]> slots_;
  alignas(64) mutable std::atomic<int> pending_{0};  // ranges of the job that are not done
  alignas(64) mutable std::atomic<int> sleepers_{0};
  std::atomic<bool> leaving_{false};
  mutable std::mutex mutex_;
  mutable std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace pymlp
