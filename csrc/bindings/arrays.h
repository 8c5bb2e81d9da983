// numpy arrays as the bindings take them: dense, of one type, sharing the memory of torch's
// tensors.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>

namespace pymlp {

template <class T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

inline void expect_size(const char* what, int64_t got, int64_t expected) {
  if (got != expected) {
    throw pybind11::value_error(std::string(what) + " must have " + std::to_string(expected) +
                                " elements, got " + std::to_string(got));
  }
}

}  // namespace pymlp
