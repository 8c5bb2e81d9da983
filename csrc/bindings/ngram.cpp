// Python's view of csrc/ngram: token streams in, numpy arrays out, no GIL meanwhile.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "ngram/counts.h"
#include "ngram/kneser_ney.h"

namespace py = pybind11;

namespace {

using pymlp::Array;
using pymlp::ngram::Counts;
using pymlp::ngram::kMaxOrder;
using pymlp::ngram::KneserNey;

// The ids decide what memory is read.
void check_ids(const Array<int32_t>& ids, int32_t vocab_size) {
  if (ids.ndim() != 1) throw py::value_error("ids must have one dimension");
  const int32_t* const begin = ids.data();
  const int32_t* const end = begin + ids.size();
  const auto wrong =
      std::find_if(begin, end, [&](int32_t id) { return id < 0 || id >= vocab_size; });
  if (wrong == end) return;
  throw py::value_error("ids must be from 0 to " + std::to_string(vocab_size - 1) + ", got " +
                        std::to_string(*wrong) + " at position " + std::to_string(wrong - begin));
}

void check_span(const Array<int32_t>& ids, int64_t begin, int64_t end) {
  if (0 <= begin && begin <= end && end <= ids.size()) return;
  throw py::value_error("begin and end must be positions of the " + std::to_string(ids.size()) +
                        " ids, in order, got " + std::to_string(begin) + " and " +
                        std::to_string(end));
}

std::shared_ptr<Counts> make_counts(const Array<int32_t>& ids, int order, int32_t vocab_size,
                                    bool reset) {
  if (order < 1 || order > kMaxOrder) {
    throw py::value_error("order must be from 1 to " + std::to_string(kMaxOrder) + ", got " +
                          std::to_string(order));
  }
  if (vocab_size < 1) {
    throw py::value_error("vocab_size must be at least 1, got " + std::to_string(vocab_size));
  }
  check_ids(ids, vocab_size);
  if (ids.size() < 1 || ids.size() > INT32_MAX) {
    throw py::value_error("n-grams are counted in 1 to 2^31 - 1 tokens, got " +
                          std::to_string(ids.size()));
  }
  const py::gil_scoped_release release;
  return std::make_shared<Counts>(ids.data(), ids.size(), order, vocab_size, reset);
}

py::tuple look_up(const Counts& counts, const Array<int32_t>& ids, int64_t begin, int64_t end) {
  check_ids(ids, counts.vocab_size());
  check_span(ids, begin, end);
  const auto table = [&] {
    return py::array_t<int32_t>({end - begin, static_cast<int64_t>(counts.order())});
  };
  py::array_t<int32_t> ngrams = table(), contexts = table(), follows = table();
  int32_t* const out[] = {ngrams.mutable_data(), contexts.mutable_data(), follows.mutable_data()};
  {
    const py::gil_scoped_release release;
    counts.look_up(ids.data(), begin, end, out[0], out[1], out[2]);
  }
  return py::make_tuple(ngrams, contexts, follows);
}

void check_order(int n, int largest) {
  if (1 <= n && n <= largest) return;
  throw py::value_error("n must be from 1 to " + std::to_string(largest) + ", got " +
                        std::to_string(n));
}

template <class T>
Array<T> copied(const std::vector<T>& values) {
  return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple ngrams(const Counts& counts, int n) {
  check_order(n, counts.order());
  const pymlp::ngram::Level& level = counts.level(n);
  Array<int32_t> contexts(level.table.size()), tokens(level.table.size());
  int32_t* const context = contexts.mutable_data();
  int32_t* const token = tokens.mutable_data();
  for (int64_t i = 0; i < level.table.size(); ++i) {
    context[i] = level.table.context(i);
    token[i] = level.table.token(i);
  }
  return py::make_tuple(contexts, tokens, copied(level.count));
}

Array<double> log_probs(const KneserNey& model, const Array<int32_t>& ids, int64_t begin,
                        int64_t end) {
  check_ids(ids, model.counts().vocab_size());
  check_span(ids, begin, end);
  Array<double> out(end - begin);
  double* const data = out.mutable_data();
  const py::gil_scoped_release release;
  model.log_probs(ids.data(), begin, end, data);
  return out;
}

py::tuple discounts(const KneserNey& model, int n) {
  check_order(n, model.counts().order());
  const pymlp::ngram::Discounts& d = model.discounts_of(n);
  return py::make_tuple(d[1], d[2], d[3]);
}

Array<double> ngram_log_probs(const KneserNey& model, int n) {
  check_order(n, model.counts().order());
  return copied(model.log_probs_of(n));
}

Array<double> ngram_log_backoffs(const KneserNey& model, int n) {
  check_order(n, model.counts().order() - 1);
  return copied(model.log_backoffs_of(n));
}

}  // namespace

void bind_ngram(py::module_& module) {
  py::class_<Counts, std::shared_ptr<Counts>>(
      module, "NGramCounts", "Counts of the n-grams of a token stream, orders 1 to `order`.")
      .def(py::init(&make_counts), py::kw_only(), py::arg("ids").noconvert(), py::arg("order"),
           py::arg("vocab_size"), py::arg("reset"))
      .def("look_up", &look_up, py::arg("ids").noconvert(), py::arg("begin"), py::arg("end"),
           "Per position and order, (end - begin, order) int32: occurrences of the n-gram and of "
           "its context, and distinct tokens after that context.")
      .def("ngrams", &ngrams, py::arg("n"),
           "The n-grams of order n: number of the context among those of order n - 1, last token, "
           "occurrences.");
  py::class_<KneserNey>(module, "KneserNey", "Interpolated modified Kneser-Ney estimates.")
      .def(py::init([](std::shared_ptr<Counts> counts) {
             return std::make_unique<KneserNey>(std::move(counts));
           }),
           py::arg("counts").none(false), py::call_guard<py::gil_scoped_release>())
      .def("log_probs", &log_probs, py::arg("ids").noconvert(), py::arg("begin"), py::arg("end"),
           "Natural logarithms of the probabilities of the positions from begin to end.")
      .def("discounts", &discounts, py::arg("n"), "D1, D2 and D3+ of order n.")
      .def("ngram_log_probs", &ngram_log_probs, py::arg("n"),
           "Of each n-gram of order n, in the order of NGramCounts.ngrams.")
      .def("ngram_log_backoffs", &ngram_log_backoffs, py::arg("n"),
           "Of each n-gram of order n as a context; n is below the largest order.");
}
