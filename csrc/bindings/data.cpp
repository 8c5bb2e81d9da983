// Python's view of csrc/data: UTF-8 bytes in, numpy arrays out, no copy on the way, no GIL
// meanwhile.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/characters.h"
#include "data/find_lines.h"
#include "data/stream.h"
#include "data/text_reader.h"

namespace py = pybind11;

namespace {

using Ids = py::array_t<int32_t, py::array::c_style>;
using Indices = py::array_t<int64_t, py::array::c_style>;

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

py::array_t<int32_t> encode(const py::bytes& text, const std::vector<uint32_t>& code_points) {
  const std::string_view view = text;
  std::vector<int32_t> ids;
  {
    py::gil_scoped_release release;
    ids = pymlp::data::encode(view, {code_points.begin(), code_points.end()});
  }
  return as_array(std::move(ids));
}

void check_span(const Ids& ids, int64_t begin, int64_t end, int64_t block_size) {
  if (block_size < 1 || begin < 0 || end < begin || end > ids.size()) {
    throw py::value_error("contexts: block_size must be at least 1, positions lie in the stream");
  }
}

py::array_t<int64_t> contexts(const Ids& ids, bool reset, int64_t begin, int64_t end,
                              int64_t block_size) {
  check_span(ids, begin, end, block_size);
  py::array_t<int64_t> tokens({end - begin, block_size});
  int64_t* to = tokens.mutable_data();
  const pymlp::data::TokenStream stream{ids.data(), reset};
  const py::gil_scoped_release release;
  for (int64_t position = begin; position < end; ++position, to += block_size) {
    pymlp::data::write_context(stream, position, block_size, to);
  }
  return tokens;
}

py::tuple examples_at(const Ids& ids, bool reset, int64_t begin, int64_t end,
                      const Indices& indices, int64_t block_size) {
  check_span(ids, begin, end, block_size);
  const int64_t count = indices.size(), n_examples = end - begin;
  const int64_t* const index = indices.data();
  for (int64_t i = 0; i < count; ++i) {
    if (index[i] < 0 || index[i] >= n_examples) {
      throw py::index_error("the index of an example must be from 0 to " +
                            std::to_string(n_examples - 1) + ", got " + std::to_string(index[i]));
    }
  }
  py::array_t<int64_t> tokens({count, block_size}), targets(count);
  int64_t *to = tokens.mutable_data(), *target = targets.mutable_data();
  const pymlp::data::TokenStream stream{ids.data(), reset};
  {
    const py::gil_scoped_release release;
    for (int64_t i = 0; i < count; ++i, to += block_size) {
      pymlp::data::write_context(stream, begin + index[i], block_size, to);
      target[i] = stream.ids[begin + index[i]];
    }
  }
  return py::make_tuple(tokens, targets);
}

std::vector<bool> find_lines(const Ids& ids, const Ids& wanted) {
  const py::gil_scoped_release release;
  return pymlp::data::find_lines(ids.data(), ids.size(), wanted.data(), wanted.size());
}

// Feeds a reader without the GIL.
class TextReader {
 public:
  explicit TextReader(bool words)
      : reader_(words ? pymlp::data::TokenKind::words : pymlp::data::TokenKind::characters) {}

  py::array_t<int32_t> feed(const py::bytes& block) {
    const std::string_view view = block;
    return ids_of([&](std::vector<int32_t>& ids) { reader_.feed(view, ids); });
  }

  py::array_t<int32_t> finish() {
    return ids_of([&](std::vector<int32_t>& ids) { reader_.finish(ids); });
  }

  py::list spellings() const {
    const pymlp::data::Spellings& found = reader_.spellings();
    py::list tokens(found.size());
    for (size_t i = 0; i < found.size(); ++i) {
      tokens[i] = py::str(found[i].data(), found[i].size());
    }
    return tokens;
  }

  int64_t n_lines() const { return reader_.n_lines(); }
  int64_t n_empty() const { return reader_.n_empty(); }

 private:
  template <class Body>
  py::array_t<int32_t> ids_of(const Body& body) {
    std::vector<int32_t> ids;
    {
      const py::gil_scoped_release release;
      body(ids);
    }
    return as_array(std::move(ids));
  }

  pymlp::data::TextReader reader_;
};

}  // namespace

void bind_data(py::module_& module) {
  module.def("distinct_code_points", &distinct_code_points, py::arg("text"),
             "Distinct code points of UTF-8 text but the line feed, ascending.");
  module.def("encode", &encode, py::arg("text"), py::arg("code_points"),
             "Ids (int32) of the characters of lines separated by line feeds, 0 after each line; "
             "code_points[i] has id i + 1, any other character -1.");
  module.def("contexts", &contexts, py::arg("ids").noconvert(), py::arg("reset"), py::arg("begin"),
             py::arg("end"), py::arg("block_size"),
             "The ids before each of the positions: (end - begin, block_size), int64.");
  module.def("examples_at", &examples_at, py::arg("ids").noconvert(), py::arg("reset"),
             py::arg("begin"), py::arg("end"), py::arg("indices").noconvert(),
             py::arg("block_size"),
             "Contexts (N, block_size) and tokens (N,), int64, at begin + indices.");
  module.def("find_lines", &find_lines, py::arg("ids").noconvert(), py::arg("wanted").noconvert(),
             "For each line of a stream, whether it is a line of the other, too.");
  py::class_<TextReader>(module, "TextReader",
                         "UTF-8 text in blocks to token numbers: from 1 as first met, 0 after each "
                         "line. Tokens are words or characters.")
      .def(py::init<bool>(), py::arg("words"))
      .def("feed", &TextReader::feed, py::arg("block"), "Numbers (int32) of what is complete.")
      .def("finish", &TextReader::finish, "Numbers of what is left when the text has ended.")
      .def("spellings", &TextReader::spellings, "The spelling of number i + 1, for each i.")
      .def_property_readonly("n_lines", &TextReader::n_lines, "Lines so far, empty ones excepted.")
      .def_property_readonly("n_empty", &TextReader::n_empty, "Empty lines so far.");
}
