// The profile of a run: seconds and calls of each phase.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace pymlp {

class Profile {
 public:
  struct Entry {
    const char* phase;
    double seconds;
    int64_t calls;
  };

  void add(const char* phase, std::chrono::steady_clock::duration time) {
    Entry& entry = find(phase);
    entry.seconds += std::chrono::duration<double>(time).count();
    entry.calls += 1;
  }

  // In the order in which the phases first came.
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  Entry& find(const char* phase) {
    for (Entry& entry : entries_) {
      if (std::strcmp(entry.phase, phase) == 0) return entry;
    }
    entries_.push_back({phase, 0, 0});
    return entries_.back();
  }

  std::vector<Entry> entries_;
};

}  // namespace pymlp
