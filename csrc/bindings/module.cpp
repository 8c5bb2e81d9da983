// The Python module pymlp._engine: data preparation, n-grams, the training engine and the choice of
// instruction set.
#include <pybind11/pybind11.h>

namespace py = pybind11;

void bind_data(py::module_& module);
void bind_inference(py::module_& module);
void bind_isa(py::module_& module);
void bind_ngram(py::module_& module);
void bind_training_loop(py::module_& module);

PYBIND11_MODULE(_engine, module) {
  module.doc() = "Native parts of pymlp that need no torch.";
  bind_data(module);
  bind_inference(module);
  bind_isa(module);
  bind_ngram(module);
  bind_training_loop(module);
}
