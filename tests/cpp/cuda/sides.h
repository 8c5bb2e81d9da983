// A problem is run twice by the same code: by the CPU's kernels, the definition of right here, and
// by those of CUDA. `Host` and `Device` are what differs.
#pragma once

#include <string>

#include "../numbers.h"
#include "device.h"

namespace sides {

using namespace pymlp;

class Host {
 public:
  static constexpr bool is_device = false;

  template <class T>
  class Array {
   public:
    explicit Array(int64_t count, int64_t = 0) : values_(size_t(count)) {}
    explicit Array(const std::vector<T>& values, int64_t = 0) : values_(values) {}
    T* data() const { return const_cast<T*>(values_.data()); }
    std::vector<T> values() const { return values_; }

   private:
    std::vector<T> values_;
  };

  template <class S>
  static const Operators<S, Parallel>& kernels() {
    for (int i = 0; i < isa_count(); ++i) {
      if (std::string(isa_entry(i).table->isa) == "baseline") return isa_entry(i).table->of<S>();
    }
    std::abort();
  }

  const Parallel& executor() const { return serial_; }
  void finish() const {}

 private:
  Serial serial_;
};

class Device {
 public:
  static constexpr bool is_device = true;

  template <class T>
  using Array = device::Array<T>;

  template <class S>
  static const Operators<S, Queue>& kernels() {
    return cuda_kernels().of<S>();
  }

  const device::TestQueue& executor() const { return queue_; }
  void finish() const { queue_.finish(); }

 private:
  device::TestQueue queue_;
};

// Ids on a side, as int64 or int32.
template <class Side>
class IdArray {
 public:
  IdArray(const std::vector<int64_t>& values, bool wide)
      : wide_(wide ? values : std::vector<int64_t>()), narrow_(narrowed(values, !wide)) {
    ids_ = {wide ? static_cast<const void*>(wide_.data()) : narrow_.data(), wide};
  }
  Ids ids() const { return ids_; }

 private:
  static std::vector<int32_t> narrowed(const std::vector<int64_t>& values, bool wanted) {
    return wanted ? std::vector<int32_t>(values.begin(), values.end()) : std::vector<int32_t>();
  }
  typename Side::template Array<int64_t> wide_;
  typename Side::template Array<int32_t> narrow_;
  Ids ids_;
};

// An array or null.
template <class Side, class T>
class Optional {
 public:
  Optional(const std::vector<T>& values, bool present, int64_t offset = 0)
      : present_(present), array_(present ? values : std::vector<T>(), offset) {}
  const T* data() const { return present_ ? array_.data() : nullptr; }

 private:
  bool present_;
  typename Side::template Array<T> array_;
};

// Scratch of exactly the size asked for.
template <class Side>
using Scratch = typename Side::template Array<char>;

using Results = std::vector<std::vector<double>>;

inline bool same_bits(const Results& a, const Results& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].size() != b[i].size()) return false;
    if (!a[i].empty() && std::memcmp(a[i].data(), b[i].data(), a[i].size() * 8) != 0) return false;
  }
  return true;
}

inline void compare(const Results& got, const Results& truth, double tolerance,
                    const std::string& what) {
  CHECK_EQ(got.size(), truth.size());
  for (size_t a = 0; a < truth.size(); ++a) {
    CHECK_EQ(got[a].size(), truth[a].size());
    double largest = 1;
    for (double x : truth[a]) {
      if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
    }
    for (size_t i = 0; i < truth[a].size(); ++i) {
      const double x = got[a][i], y = truth[a][i];
      const bool close =
          std::fabs(x - y) <= tolerance * largest || x == y || (std::isnan(x) && std::isnan(y));
      if (CHECK(close)) continue;
      std::cerr << "  " << what << ", array " << a << ", element " << i << ": got " << x
                << ", expected " << y << "\n";
      return;
    }
  }
}

// The results of both sides, and those of the device in another order of its threads.
template <class Run>
void agree(double tolerance, const std::string& what, const Run& run) {
  const Results truth = run(Host()), got = run(Device());
  compare(got, truth, tolerance, what);
#if !ON_DEVICE
  emulation::set_seed(uint64_t(check::failures()) + what.size() + truth.size() + 77);
#endif
  if (!CHECK(same_bits(run(Device()), got))) std::cerr << "  " << what << ": other bits\n";
}

}  // namespace sides
