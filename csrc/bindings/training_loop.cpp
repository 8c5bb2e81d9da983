// Python's view of csrc/engine/training_loop: numpy arrays that share the memory of torch's
// tensors. No GIL while steps run, but signals are answered.
#include "engine/training_loop.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/checkpoint.h"
#include "bindings/training_data.h"
#include "engine/dropout.h"
#include "engine/team.h"

namespace py = pybind11;

namespace {

using pymlp::Array;
using pymlp::expect_size;

template <class A>
class TrainingLoop {
 public:
  TrainingLoop(const pymlp::ModelSizes& sizes, const pymlp::Optimizer& optimizer,
               const pymlp::Objective& objective, pymlp::TrainingArrays data, int64_t batch_size,
               std::optional<pymlp::Candidates> candidates)
      : sizes_(sizes),
        optimizer_(optimizer),
        data_(std::move(data)),
        batch_size_(batch_size),
        loop_(sizes, optimizer, objective, data_.with(sizes.T), batch_size, std::move(candidates)) {
  }

  void run(std::vector<Array<A>>& parameters, const std::vector<bool>& trained,
           std::vector<Array<A>>& first, std::vector<Array<A>>& second,
           const Array<int64_t>& indices, const Array<double>& rates, Array<double>& losses,
           std::optional<Array<double>>& grad_norms, Array<int64_t>& done, int64_t done_before,
           int64_t first_step, int threads, const py::object& stopping) {
    const Running running(running_);
    const auto pointers = checked(parameters, trained, first, second);
    pymlp::Steps steps;
    steps.count = rates.size();
    steps.batch_size = batch_size_;
    expect_size("indices", indices.size(), steps.count * batch_size_);
    expect_size("losses", losses.size(), steps.count);
    if (grad_norms) expect_size("grad_norms", grad_norms->size(), steps.count);
    steps.indices = indices.data();
    steps.rates = rates.data();
    steps.losses = losses.mutable_data();
    steps.grad_norms = grad_norms ? grad_norms->mutable_data() : nullptr;
    steps.done_before = done_before;
    steps.first = first_step;
    expect_size("done", done.size(), 1);
    int64_t& complete = *done.mutable_data();
    const py::gil_scoped_release release;
    const pymlp::Team team(threads, pymlp::Checkpoint(stopping), profiling_ ? &profile_ : nullptr);
    try {
      loop_.run(pointers.data(), steps, team, complete);
    } catch (const pymlp::Stopped&) {  // `complete` says where
    }
  }

  void set_profiling(bool on) { profiling_ = on; }
  bool profiling() const { return profiling_; }

  std::map<std::string, std::pair<double, int64_t>> profile() const {
    std::map<std::string, std::pair<double, int64_t>> phases;
    for (const auto& entry : profile_.entries()) phases[entry.phase] = {entry.seconds, entry.calls};
    return phases;
  }

 private:
  // One run at a time: the scratch is shared.
  class Running {
   public:
    explicit Running(std::atomic<bool>& flag) : flag_(flag) {
      if (flag_.exchange(true)) throw std::runtime_error("TrainingLoop: it is running already");
    }
    ~Running() { flag_.store(false); }

   private:
    std::atomic<bool>& flag_;
  };

  std::vector<pymlp::Trained<A>> checked(std::vector<Array<A>>& parameters,
                                         const std::vector<bool>& trained,
                                         std::vector<Array<A>>& first,
                                         std::vector<Array<A>>& second) const {
    const auto sizes = sizes_.parameter_sizes();
    const int count = sizes_.n_parameters();
    const bool has_first = optimizer_.rule.adamw || optimizer_.rule.momentum != 0;
    expect_size("parameters", static_cast<int64_t>(parameters.size()), count);
    expect_size("trained", static_cast<int64_t>(trained.size()), count);
    expect_size("first", static_cast<int64_t>(first.size()), has_first ? count : 0);
    expect_size("second", static_cast<int64_t>(second.size()), optimizer_.rule.adamw ? count : 0);
    std::vector<pymlp::Trained<A>> pointers(static_cast<size_t>(count));
    for (size_t i = 0; i < pointers.size(); ++i) {
      const auto data = [&](std::vector<Array<A>>& arrays, const char* what) -> A* {
        if (arrays.empty()) return nullptr;
        expect_size(what, arrays[i].size(), sizes[i]);
        return arrays[i].mutable_data();
      };
      pointers[i] = {data(parameters, "a parameter"), !trained[i], data(first, "a first state"),
                     data(second, "a second state")};
    }
    return pointers;
  }

  pymlp::ModelSizes sizes_;
  pymlp::Optimizer optimizer_;
  pymlp::TrainingArrays data_;  // kept alive
  int64_t batch_size_;
  pymlp::TrainingLoop<A> loop_;
  pymlp::Profile profile_;
  bool profiling_ = false;
  std::atomic<bool> running_{false};
};

template <class A>
void bind(py::module_& module, const char* name) {
  using Loop = TrainingLoop<A>;
  py::class_<Loop>(module, name, "Training steps of one model, one optimizer and one batch size.")
      .def(py::init([](int64_t vocab_size, int64_t block_size, int64_t n_embd, int64_t n_hidden,
                       bool adamw, double momentum, double weight_decay,
                       std::pair<double, double> betas, double eps, double max_grad_norm,
                       pymlp::TrainingArrays data, int64_t batch_size, bool direct,
                       bool decay_biases, bool sparse_embedding, double label_smoothing,
                       double z_loss, double dropout, uint64_t dropout_seed,
                       std::optional<pymlp::Candidates> candidates) {
             const pymlp::ModelSizes sizes{vocab_size, block_size, n_embd, n_hidden, direct};
             pymlp::Optimizer optimizer;
             optimizer.rule.adamw = adamw;
             optimizer.rule.momentum = momentum;
             optimizer.rule.weight_decay = weight_decay;
             optimizer.rule.beta1 = betas.first;
             optimizer.rule.beta2 = betas.second;
             optimizer.rule.eps = eps;
             optimizer.rule.decay_biases = decay_biases;
             optimizer.max_grad_norm = max_grad_norm;
             optimizer.sparse_embedding = sparse_embedding;
             if (candidates) {
               expect_size("candidates' vocabulary", candidates->vocab_size(), vocab_size);
               expect_size("candidates' batch", candidates->batch_size(), batch_size);
             }
             const pymlp::Objective objective{label_smoothing, z_loss, dropout, dropout_seed};
             return std::make_unique<Loop>(sizes, optimizer, objective, std::move(data), batch_size,
                                           std::move(candidates));
           }),
           py::kw_only(), py::arg("vocab_size"), py::arg("block_size"), py::arg("n_embd"),
           py::arg("n_hidden"), py::arg("adamw"), py::arg("momentum"), py::arg("weight_decay"),
           py::arg("betas"), py::arg("eps"), py::arg("max_grad_norm"), py::arg("data"),
           py::arg("batch_size"), py::arg("direct") = false, py::arg("decay_biases") = true,
           py::arg("sparse_embedding") = false, py::arg("label_smoothing") = 0.0,
           py::arg("z_loss") = 0.0, py::arg("dropout") = 0.0, py::arg("dropout_seed") = 0,
           py::arg("candidates") = py::none())
      .def("run", &Loop::run, py::kw_only(), py::arg("parameters").noconvert(), py::arg("trained"),
           py::arg("first").noconvert(), py::arg("second").noconvert(),
           py::arg("indices").noconvert(), py::arg("rates").noconvert(),
           py::arg("losses").noconvert(), py::arg("grad_norms").noconvert(),
           py::arg("done").noconvert(), py::arg("done_before"), py::arg("first_step") = 0,
           py::arg("threads"), py::arg("stopping"),
           "Carries out len(rates) steps in place; counts those complete in done (1,), also where "
           "an exception ends them, or stopping() gives True.")
      .def_property("profiling", &Loop::profiling, &Loop::set_profiling,
                    "Whether `run` measures its phases.")
      .def_property_readonly("profile", &Loop::profile, "Phase: (seconds, calls).");
}

template <class T>
py::array_t<T> copied(int64_t size, const T* from) {
  return py::array_t<T>(size, from);
}

py::tuple draw_candidates(pymlp::Candidates& candidates, int64_t step,
                          const Array<int64_t>& targets) {
  expect_size("targets", targets.size(), candidates.batch_size());
  for (int64_t b = 0; b < targets.size(); ++b) {
    if (pymlp::outside(targets.data()[b], candidates.vocab_size()))
      pymlp::throw_out_of_range("a target", targets.data()[b], candidates.vocab_size());
  }
  candidates.draw(step, {targets.data(), true});
  const int64_t count = candidates.count();
  return py::make_tuple(
      copied(count, candidates.words()),
      copied(targets.size(), static_cast<const int32_t*>(candidates.places().data)),
      copied(count, candidates.offsets()));
}

}  // namespace

void bind_training_loop(py::module_& module) {
  module.def(
      "dropout_kept",
      [](uint64_t seed, int64_t step, bool hidden, double p, int64_t rows, int64_t columns) {
        py::array_t<uint8_t> kept({rows, columns});
        const auto layer = hidden ? pymlp::DropoutLayer::hidden : pymlp::DropoutLayer::input;
        pymlp::draw_kept(seed, step, layer, p, 0, rows, columns, kept.mutable_data());
        return kept;
      },
      py::kw_only(), py::arg("seed"), py::arg("step"), py::arg("hidden"), py::arg("p"),
      py::arg("rows"), py::arg("columns"),
      "1 for the units (rows, columns) that dropout keeps in a step, 0 for the others; uint8.");
  using pymlp::Candidates;
  py::class_<Candidates>(module, "Candidates", "What a step of the sampled softmax compares.")
      .def(py::init(
               [](const Array<int64_t>& counts, int64_t noise, int64_t batch_size, uint64_t seed) {
                 if (counts.size() < 1 || noise < 1 || batch_size < 1) {
                   throw std::invalid_argument(
                       "Candidates: counts must not be empty, noise and batch_size at least 1");
                 }
                 return Candidates(counts.data(), counts.size(), noise, batch_size, seed);
               }),
           py::kw_only(), py::arg("counts").noconvert(), py::arg("noise"), py::arg("batch_size"),
           py::arg("seed"))
      .def("draw", &draw_candidates, py::arg("step"), py::arg("targets").noconvert(),
           "Of a step whose targets (B) these are: words (R) ascending and places (B) of the "
           "targets among them, int32; offsets (R) of their logits, float64.");
  using pymlp::TrainingArrays;
  py::class_<TrainingArrays>(module, "TrainingData", "The examples that steps are drawn from.")
      .def_static("table", &TrainingArrays::table, py::arg("tokens").noconvert(),
                  py::arg("targets").noconvert(), "Contexts (N, T) and targets (N,), int64.")
      .def_static("stream", &TrainingArrays::stream, py::arg("ids").noconvert(), py::arg("begin"),
                  py::arg("end"), py::arg("reset"),
                  "The tokens ids[begin:end] (int32), each after those before it.");
  bind<float>(module, "TrainingLoopFloat32");
  bind<double>(module, "TrainingLoopFloat64");
}
