#include "kernels/dispatch.h"

#include <atomic>
#include <cstring>

namespace pymlp {

namespace baseline {
extern const KernelTable table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const KernelTable table;
}
namespace avx512 {
extern const KernelTable table;
}
#elif defined(__aarch64__)
namespace neon {
extern const KernelTable table;
}
#endif

namespace {

// __builtin_cpu_supports asks the operating system too (XGETBV), not the CPU alone.
const IsaEntry entries[] = {
#if defined(__x86_64__)
    {&avx512::table,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
     }},
    {&avx2::table, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#elif defined(__aarch64__)
    {&neon::table, [] { return true; }},
#endif
    {&baseline::table, [] { return true; }},
};

const KernelTable* fastest_supported() {
  for (const IsaEntry& entry : entries) {
    if (entry.supported()) return entry.table;
  }
  return &baseline::table;
}

std::atomic<const KernelTable*>& selected() {
  static std::atomic<const KernelTable*> table{fastest_supported()};
  return table;
}

}  // namespace

int isa_count() { return static_cast<int>(sizeof(entries) / sizeof(entries[0])); }

const IsaEntry& isa_entry(int index) { return entries[index]; }

const KernelTable& active_kernels() { return *selected().load(std::memory_order_relaxed); }

bool force_isa(const char* name) {
  for (const IsaEntry& entry : entries) {
    if (std::strcmp(entry.table->isa, name) == 0 && entry.supported()) {
      selected().store(entry.table, std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

}  // namespace pymlp
