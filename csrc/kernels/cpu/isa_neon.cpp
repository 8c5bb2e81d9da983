// The kernels for arm64. CMakeLists.txt gives this file, and no other, the flags.
#include <arm_neon.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "kernels/kernels.h"

namespace pymlp {
namespace neon {

#include "kernels/cpu/vec_neon.h"
//
#include "kernels/cpu/bodies-inl.h"

extern const KernelTable table;
constexpr KernelTable table = make_table("neon");  // constexpr: no code runs at load time

}  // namespace neon
}  // namespace pymlp
