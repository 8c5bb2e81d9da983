// The kernels for x86-64 with AVX-512. CMakeLists.txt gives this file, and no other, the flags.
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "kernels/kernels.h"

namespace pymlp {
namespace avx512 {

#include "kernels/cpu/vec_avx512.h"
//
#include "kernels/cpu/bodies-inl.h"

extern const KernelTable table;
constexpr KernelTable table = make_table("avx512");  // constexpr: no code runs at load time

}  // namespace avx512
}  // namespace pymlp
