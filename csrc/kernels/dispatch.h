// Which instruction set the kernels run with: chosen once from what the machine supports, can be
// asked and forced.
#pragma once

#include "kernels/kernels.h"

#define PYMLP_API __attribute__((visibility("default")))

namespace pymlp {

// Compiled-in instruction sets, the fastest first, and whether this machine can run them.
struct IsaEntry {
  const KernelTable* table;
  bool (*supported)();
};

PYMLP_API int isa_count();
PYMLP_API const IsaEntry& isa_entry(int index);

// The table in use: the first supported one, unless another was forced.
PYMLP_API const KernelTable& active_kernels();

// Forces a table by name; false, and no change, when it is unknown or not supported here.
PYMLP_API bool force_isa(const char* name);

}  // namespace pymlp
