// The checkpoint of long calls between two phases: it answers Python's signals, whose exceptions
// end the call, and asks whether to stop.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>

namespace pymlp {

// Ends a call between two phases.
struct Stopped {};

class Checkpoint {
 public:
  // stopping: () -> bool, or None; outlives the call.
  explicit Checkpoint(const pybind11::object& stopping) : stopping_(stopping) {}

  void operator()() {
    constexpr auto period = std::chrono::milliseconds(20);
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < period) return;
    last_ = now;
    const pybind11::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    if (!stopping_.is_none() && stopping_().cast<bool>()) throw Stopped();
  }

 private:
  const pybind11::object& stopping_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace pymlp
