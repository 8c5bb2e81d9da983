// Which instruction set the kernels run with; see pymlp/isa.py.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "kernels/dispatch.h"

namespace py = pybind11;

namespace {

// Clang's version string names Clang; GCC's is a bare number.
#if defined(__clang__)
constexpr const char* compiler = __VERSION__;
#else
constexpr const char* compiler = "GCC " __VERSION__;
#endif

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (int i = 0; i < pymlp::isa_count(); ++i) {
    if (pymlp::isa_entry(i).supported()) names.push_back(pymlp::isa_entry(i).table->isa);
  }
  return names;
}

}  // namespace

void bind_isa(py::module_& module) {
  module.def("available_isas", &available_isas,
             "Instruction sets this machine can run, fastest first.");
  module.def(
      "active_isa", [] { return pymlp::active_kernels().isa; }, "The instruction set in use.");
  module.def(
      "active_lanes", [] { return pymlp::active_kernels().lanes; },
      "Floats in a vector, as compiled into the code in use.");
  module.def(
      "force_isa", [](const std::string& name) { return pymlp::force_isa(name.c_str()); },
      py::arg("name"),
      "Use the named instruction set; False, and no change, if it cannot be used here.");
  module.def("compiler", [] { return compiler; }, "The compiler this was built with.");
}
