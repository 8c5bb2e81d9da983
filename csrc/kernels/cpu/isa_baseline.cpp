// The kernels for every processor of the architecture. CMakeLists.txt gives this file, and no
// other, the flags.
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "kernels/kernels.h"

namespace pymlp {
namespace baseline {

#include "kernels/cpu/vec_baseline.h"
//
#include "kernels/cpu/bodies-inl.h"

extern const KernelTable table;
constexpr KernelTable table = make_table("baseline");  // constexpr: no code runs at load time

}  // namespace baseline
}  // namespace pymlp
