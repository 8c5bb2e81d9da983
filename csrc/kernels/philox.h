// Philox 4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw (2011), "Parallel
// random numbers: as easy as 1, 2, 3": a number for each key and counter, without a state.
#pragma once

#include <array>
#include <cstdint>

namespace pymlp {

// constexpr, so that kernels on devices can call it.
constexpr std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter,
                                         std::array<uint32_t, 2> key) {
  constexpr uint64_t multiplier0 = 0xD2511F53, multiplier1 = 0xCD9E8D57;
  constexpr uint32_t weyl0 = 0x9E3779B9, weyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = multiplier0 * counter[0], product1 = multiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key = {key[0] + weyl0, key[1] + weyl1};
  }
  return counter;
}

// Uniform in [0, 1), in steps of 2^-53.
inline double uniform(uint64_t seed, int64_t sequence, int64_t position) {
  const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  const auto s = static_cast<uint64_t>(sequence), p = static_cast<uint64_t>(position);
  const auto bits = philox({low(s), high(s), low(p), high(p)}, {low(seed), high(seed)});
  const uint64_t joined = (static_cast<uint64_t>(bits[0]) << 32) | bits[1];
  return static_cast<double>(joined >> 11) * 0x1p-53;
}

}  // namespace pymlp
