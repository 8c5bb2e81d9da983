#include "engine/team.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include "engine/flush_subnormals.h"

namespace pymlp {

namespace {

// Multiply-adds that are not worth a barrier: about half a microsecond.
constexpr int64_t alone_work = 16384;

// Multiply-adds between two calls of before_phase: about half a millisecond.
constexpr int64_t checked_work = int64_t(1) << 24;

// Multiply-adds of a thread between two calls of before_phase in a phase: some ten milliseconds.
constexpr int64_t portion_work = int64_t(1) << 30;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

// Spins until `ready`, at most so often.
template <class Ready>
bool spin_until(const Ready& ready, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (ready()) return true;
    pause();
  }
  return false;
}

// How often a thread spins before it takes others for late, and before it lets others run: about
// one and some twenty microseconds.
constexpr int late = 100, patient = 2000;

// Waits for `ready`, first spinning, then letting other threads run; gives up after `yields`.
template <class Ready>
bool wait_until(const Ready& ready, int64_t yields) {
  if (spin_until(ready, patient)) return true;
  for (int64_t i = 0; i < yields; ++i) {
    if (ready()) return true;
    std::this_thread::yield();
  }
  return false;
}

}  // namespace

Team::Team(int threads, std::function<void()> before_phase, Profile* profile)
    : threads_(std::max(1, threads)),
      before_phase_(std::move(before_phase)),
      profile_(profile),
      slots_(new Slot[static_cast<size_t>(threads_)]) {
  try {
    for (int slot = 1; slot < threads_; ++slot) workers_.emplace_back([this, slot] { work(slot); });
  } catch (const std::system_error&) {
    // The machine gives no more threads: the calling one takes over the ranges of those missing.
  }
}

Team::~Team() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    leaving_.store(true);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Team::run(const Phase& phase, RangeBody body) const {
  if (phase.total <= 0) return;
  const int64_t cost = std::max<int64_t>(1, phase.cost);
  const int64_t portion =
      phase.stop == Stop::anywhere
          ? std::min(phase.total, std::max<int64_t>(threads_, threads_ * (portion_work / cost)))
          : phase.total;
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = profile_ ? Clock::now() : Clock::time_point();
  for (int64_t begin = 0; begin < phase.total; begin += portion) {
    const int64_t count = std::min(portion, phase.total - begin);
    if (phase.stop != Stop::never) check_in(count * cost);
    if (count == phase.total) {
      run_portion(count, phase.cost, body);
    } else {
      run_portion(count, phase.cost,
                  [&body, begin](int64_t b, int64_t e) { body(begin + b, begin + e); });
    }
  }
  if (profile_) profile_->add(phase.name, Clock::now() - start);
}

void Team::check_in(int64_t work) const {
  unchecked_work_ += work;
  if (unchecked_work_ < checked_work) return;
  unchecked_work_ = 0;
  if (before_phase_) before_phase_();
}

void Team::run_portion(int64_t total, int64_t cost, const RangeBody& body) const {
  const FlushSubnormals flush;
  if (threads_ > 1 && total > 1 && total * cost > alone_work) {
    run_together(total, body);
  } else {
    body(0, total);
  }
}

void Team::run_together(int64_t total, const RangeBody& body) const {
  job_.total = total;
  job_.body = body;
  pending_.store(threads_ - 1, std::memory_order_relaxed);
  const uint64_t job = job_.number.load(std::memory_order_relaxed) + 1;
  job_.number.store(job, std::memory_order_seq_cst);
  wake_sleepers();
  run_range(0);
  const auto done = [this] { return pending_.load(std::memory_order_acquire) == 0; };
  // Asking after the others' ranges takes their cache lines: only if they are late.
  if (spin_until(done, late)) return;
  for (int slot = 1; slot < threads_; ++slot) claim_and_run(slot, job);
  while (!done()) wait_until(done, 1);
}

void Team::run_range(int slot) const {
  const int64_t begin = job_.total * slot / threads_;
  const int64_t end = job_.total * (slot + 1) / threads_;
  if (begin < end) job_.body(begin, end);
}

// Whoever claims a range runs it. While a range of a job is claimed and not done the job stays, so
// that job_ is read only after the claim.
void Team::claim_and_run(int slot, uint64_t job) const {
  uint64_t expected = job - 1;
  std::atomic<uint64_t>& claimed = slots_[static_cast<size_t>(slot)].claimed;
  if (!claimed.compare_exchange_strong(expected, job, std::memory_order_acq_rel)) return;
  run_range(slot);
  pending_.fetch_sub(1, std::memory_order_release);
}

void Team::work(int slot) {
  const FlushSubnormals flush;
  uint64_t done = 0;
  while (wait_for_job(done)) {
    done = job_.number.load(std::memory_order_acquire);
    claim_and_run(slot, done);
  }
}

// False when the team is leaving.
bool Team::wait_for_job(uint64_t done) {
  const auto has_job = [&] {
    return job_.number.load(std::memory_order_seq_cst) != done || leaving_.load();
  };
  if (!wait_until(has_job, 50)) {
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, has_job);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
  }
  return !leaving_.load();
}

void Team::wake_sleepers() const {
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  std::lock_guard<std::mutex> lock(mutex_);
  wake_.notify_all();
}

}  // namespace pymlp
