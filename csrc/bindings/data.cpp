// Python's view of csrc/data: UTF-8 bytes in, numpy arrays out, no copy on the way, no GIL
// meanwhile.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/examples.h"

namespace py = pybind11;

namespace {

using Ids = py::array_t<int32_t, py::array::c_style>;
using Starts = py::array_t<int64_t, py::array::c_style>;

// A numpy array that owns the vector's memory.
template <class T>
py::array_t<T> as_array(std::vector<T>&& values) {
  auto owner = std::make_unique<std::vector<T>>(std::move(values));
  const auto size = static_cast<py::ssize_t>(owner->size());
  T* data = owner->data();
  py::capsule free(owner.get(), [](void* vector) { delete static_cast<std::vector<T>*>(vector); });
  owner.release();
  return py::array_t<T>(size, data, free);
}

std::vector<uint32_t> distinct_code_points(const py::bytes& text) {
  const std::string_view view = text;
  py::gil_scoped_release release;
  const std::vector<char32_t> found = pymlp::data::distinct_code_points(view);
  return {found.begin(), found.end()};
}

py::tuple encode(const py::bytes& text, const std::vector<uint32_t>& code_points) {
  const std::string_view view = text;
  pymlp::data::EncodedLines lines;
  {
    py::gil_scoped_release release;
    lines = pymlp::data::encode(view, {code_points.begin(), code_points.end()});
  }
  return py::make_tuple(as_array(std::move(lines.ids)), as_array(std::move(lines.starts)));
}

// The ids and starts come from `encode` or from pymlp/data.py, yet they decide what memory is read.
void check_lines(const Ids& ids, const Starts& starts, int64_t block_size) {
  if (block_size < 1) {
    throw py::value_error("examples: block_size must be at least 1, got " +
                          std::to_string(block_size));
  }
  if (ids.ndim() != 1 || starts.ndim() != 1 || starts.size() < 1 || starts.at(0) != 0) {
    throw py::value_error("make_examples: ids and starts must be vectors, and starts[0] be 0");
  }
  if (!std::is_sorted(starts.data(), starts.data() + starts.size())) {
    throw py::value_error("make_examples: starts must ascend");
  }
  if (starts.at(starts.size() - 1) != ids.size()) {
    throw py::value_error("make_examples: the last of starts must be the number of ids");
  }
}

py::tuple make_examples(const Ids& ids, const Starts& starts, int64_t block_size) {
  check_lines(ids, starts, block_size);
  const int64_t n_lines = starts.size() - 1;
  const int64_t n_examples = ids.size() + n_lines;
  py::array_t<int64_t> tokens({n_examples, block_size});
  py::array_t<int64_t> targets(n_examples);
  int64_t* tokens_data = tokens.mutable_data();
  int64_t* targets_data = targets.mutable_data();
  {
    py::gil_scoped_release release;
    pymlp::data::make_examples(ids.data(), starts.data(), n_lines, block_size, tokens_data,
                               targets_data);
  }
  return py::make_tuple(tokens, targets);
}

}  // namespace

void bind_data(py::module_& module) {
  module.def("distinct_code_points", &distinct_code_points, py::arg("text"),
             "Distinct code points of UTF-8 text but the line feed, ascending.");
  module.def("encode", &encode, py::arg("text"), py::arg("code_points"),
             "Ids (int32) of the characters of lines separated by line feeds, and where each line "
             "starts (int64); code_points[i] has id i + 1, any other character -1.");
  module.def("make_examples", &make_examples, py::arg("ids").noconvert(),
             py::arg("starts").noconvert(), py::arg("block_size"),
             "Context windows: tokens (N, block_size) and targets (N,), int64.");
}
