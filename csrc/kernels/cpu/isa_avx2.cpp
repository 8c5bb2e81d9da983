// The kernels for x86-64 with AVX2 and FMA. CMakeLists.txt gives this file, and no other, the
// flags.
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "kernels/kernels.h"

namespace pymlp {
namespace avx2 {

#include "kernels/cpu/vec_avx2.h"
//
#include "kernels/cpu/bodies-inl.h"

extern const KernelTable table;
constexpr KernelTable table = make_table("avx2");  // constexpr: no code runs at load time

}  // namespace avx2
}  // namespace pymlp
