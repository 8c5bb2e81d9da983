// Python's view of csrc/engine/inference.
#include "engine/inference.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/checkpoint.h"
#include "engine/team.h"
#include "kernels/philox.h"

namespace py = pybind11;

namespace {

using pymlp::Array;
using pymlp::expect_size;

// (vocab_size, block_size, n_embd, n_hidden)
using Sizes = std::array<int64_t, 4>;

template <class A>
pymlp::Model<A> model_of(const Sizes& sizes, const std::vector<Array<A>>& parameters) {
  const bool direct = parameters.size() == pymlp::most_parameters;
  pymlp::Model<A> model{{sizes[0], sizes[1], sizes[2], sizes[3], direct}, {}};
  expect_size("parameters", static_cast<int64_t>(parameters.size()), model.sizes.n_parameters());
  for (size_t i = 0; i < parameters.size(); ++i) {
    expect_size("a parameter", parameters[i].size(), model.sizes.parameter_sizes()[i]);
    model.parameters[i] = parameters[i].data();
  }
  return model;
}

// token_losses or token_logits of the engine.
template <class A>
using OfTokens = void (*)(const pymlp::Model<A>&, int64_t, const int64_t*, const int64_t*, A*,
                          const pymlp::Parallel&);

template <class A, OfTokens<A> compute>
py::array_t<A> of_tokens(const Sizes& sizes, const std::vector<Array<A>>& parameters,
                         const Array<int64_t>& tokens, const Array<int64_t>& targets, int threads) {
  const pymlp::Model<A> model = model_of(sizes, parameters);
  const int64_t N = targets.size();
  expect_size("tokens", tokens.size(), N * model.sizes.T);
  py::array_t<A> values(N);
  A* const out = values.mutable_data();
  const py::none never_stopping;
  {
    const py::gil_scoped_release release;
    const pymlp::Team team(threads, pymlp::Checkpoint(never_stopping));
    compute(model, N, tokens.data(), targets.data(), out, team);
  }
  return values;
}

template <class A>
py::tuple sample(const Sizes& sizes, const std::vector<Array<A>>& parameters,
                 const pymlp::SampleOptions& options, int threads) {
  const pymlp::Model<A> model = model_of(sizes, parameters);
  std::vector<std::vector<int32_t>> sequences;
  const py::none never_stopping;
  {
    const py::gil_scoped_release release;
    const pymlp::Team team(threads, pymlp::Checkpoint(never_stopping));
    sequences = pymlp::sample(model, options, team);
  }
  py::array_t<int64_t> starts(static_cast<py::ssize_t>(sequences.size()) + 1);
  int64_t* const start = starts.mutable_data();
  start[0] = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    start[i + 1] = start[i] + static_cast<int64_t>(sequences[i].size());
  }
  py::array_t<int32_t> ids(start[sequences.size()]);
  int32_t* to = ids.mutable_data();
  for (const std::vector<int32_t>& sequence : sequences) {
    to = std::copy(sequence.begin(), sequence.end(), to);
  }
  return py::make_tuple(ids, starts);
}

// The numbers that decide one token of each of so many sequences.
py::array_t<double> uniforms(uint64_t seed, const Array<int64_t>& sequences, int64_t position) {
  py::array_t<double> numbers(sequences.size());
  for (py::ssize_t i = 0; i < sequences.size(); ++i) {
    numbers.mutable_data()[i] = pymlp::uniform(seed, sequences.data()[i], position);
  }
  return numbers;
}

template <class A>
void bind(py::module_& module, const char* losses, const char* logits, const char* samples) {
  module.def(logits, &of_tokens<A, pymlp::token_logits<A>>, py::kw_only(), py::arg("sizes"),
             py::arg("parameters").noconvert(), py::arg("tokens").noconvert(),
             py::arg("targets").noconvert(), py::arg("threads"),
             "The logit of each target (N,) after its context, tokens (N, T).");
  module.def(losses, &of_tokens<A, pymlp::token_losses<A>>, py::kw_only(), py::arg("sizes"),
             py::arg("parameters").noconvert(), py::arg("tokens").noconvert(),
             py::arg("targets").noconvert(), py::arg("threads"),
             "-log p of each target (N,) after its context, tokens (N, T).");
  module.def(
      samples,
      [](const Sizes& sizes, const std::vector<Array<A>>& parameters, int64_t count,
         std::vector<int32_t> prefix, int64_t max_length, double temperature, int64_t top_k,
         uint64_t seed, int threads) {
        const pymlp::SampleOptions options{count, std::move(prefix), max_length, temperature, top_k,
                                           seed};
        return sample<A>(sizes, parameters, options, threads);
      },
      py::kw_only(), py::arg("sizes"), py::arg("parameters").noconvert(), py::arg("count"),
      py::arg("prefix"), py::arg("max_length"), py::arg("temperature"), py::arg("top_k"),
      py::arg("seed"), py::arg("threads"),
      "Ids (int32) of drawn sequences, one after the other, and where each starts (int64).");
}

}  // namespace

void bind_inference(py::module_& module) {
  bind<float>(module, "token_losses_float32", "token_logits_float32", "sample_float32");
  bind<double>(module, "token_losses_float64", "token_logits_float64", "sample_float64");
  module.def("uniforms", &uniforms, py::kw_only(), py::arg("seed"),
             py::arg("sequences").noconvert(), py::arg("position"),
             "Of each sequence (N,): the number in [0, 1) that `sample` draws its token by.");
}
