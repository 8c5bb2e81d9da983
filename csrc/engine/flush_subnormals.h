// Arithmetic without subnormal numbers, on which some processors are a hundred times slower.
#pragma once

#include <cstdint>

namespace pymlp {

// As long as it lives, the calling thread takes subnormal numbers for 0 and rounds results that
// would be subnormal to 0; afterwards it works as it did before. A training loop meets them where
// numbers decay: moments of a word that does not occur, parameters under weight decay.
class FlushSubnormals {
 public:
  FlushSubnormals() : before_(control()) { set_control(before_ | flush_bits); }
  ~FlushSubnormals() { set_control(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  using Control = uint32_t;
  static constexpr Control flush_bits = 0x8040;  // of MXCSR: FTZ, DAZ
  static Control control() { return __builtin_ia32_stmxcsr(); }
  static void set_control(Control control) { __builtin_ia32_ldmxcsr(control); }
#elif defined(__aarch64__)
  using Control = uint64_t;
  static constexpr Control flush_bits = uint64_t(1) << 24;  // of FPCR: FZ
  static Control control() {
    Control control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    return control;
  }
  static void set_control(Control control) {
    asm volatile("msr fpcr, %0" : : "r"(control) : "memory");
  }
#else
  using Control = int;
  static constexpr Control flush_bits = 0;
  static Control control() { return 0; }
  static void set_control(Control) {}
#endif

  const Control before_;
};

}  // namespace pymlp
