// Python's view of pymlp::TrainingData: the arrays that it points into, kept alive.
#pragma once

#include <utility>

#include "bindings/arrays.h"
#include "engine/batch.h"

namespace pymlp {

class TrainingArrays {
 public:
  // tokens (N, T), targets (N)
  static TrainingArrays table(Array<int64_t> tokens, Array<int64_t> targets) {
    TrainingArrays made;
    made.data_.N = targets.size();
    made.data_.tokens = tokens.data();
    made.data_.targets = targets.data();
    made.block_size_ = tokens.ndim() == 2 ? tokens.shape(1) : 0;
    expect_size("tokens", tokens.size(), targets.size() * made.block_size_);
    made.owners_ = {std::move(tokens), std::move(targets)};
    return made;
  }

  // The tokens at [begin, end) of a stream
  static TrainingArrays stream(Array<int32_t> ids, int64_t begin, int64_t end, bool reset) {
    if (begin < 0 || end < begin || end > ids.size()) {
      throw pybind11::value_error("stream: begin and end must ascend within the ids");
    }
    TrainingArrays made;
    made.data_.N = end - begin;
    made.data_.stream = {ids.data(), reset};
    made.data_.begin = begin;
    made.owners_ = {std::move(ids), pybind11::none()};
    return made;
  }

  // The data for contexts of block_size tokens.
  const TrainingData& with(int64_t block_size) const {
    if (data_.tokens) expect_size("a context", block_size_, block_size);
    return data_;
  }

 private:
  TrainingArrays() = default;

  TrainingData data_;
  int64_t block_size_ = 0;
  std::pair<pybind11::object, pybind11::object> owners_;
};

}  // namespace pymlp
