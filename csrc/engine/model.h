// Sizes and parameters of a model, as the engine knows them, and memory to compute in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace pymlp {

// At most: the last one is not there without direct connections.
constexpr int most_parameters = 6;

struct ModelSizes {
  int64_t V, T, E, H;
  bool direct = false;  // connections from the embeddings to the output; only then may H be 0

  // How many parameters there are, in the order of the model's state_dict.
  int n_parameters() const { return direct ? 6 : 5; }

  // Elements of embedding (V, E), hidden weight (H, T*E) and bias (H), output weight (V, H) and
  // bias (V), direct weight (V, T*E).
  std::array<int64_t, most_parameters> parameter_sizes() const { return with_outputs(V); }
  // The same if the output layer has so many rows.
  std::array<int64_t, most_parameters> with_outputs(int64_t rows) const {
    return {V * E, H * T * E, H, rows * H, rows, direct ? rows * T * E : 0};
  }
};

// A parameter and the optimizer's state of it; each dense, of the size of the parameter.
template <class A>
struct Trained {
  A* parameter = nullptr;
  bool frozen = false;  // left as it is
  A* first = nullptr;   // SGD: momentum buffer, or null; AdamW: exp_avg
  A* second = nullptr;  // AdamW: exp_avg_sq
};

inline bool outside(int64_t id, int64_t end) {
  return static_cast<uint64_t>(id) >= static_cast<uint64_t>(end);
}

[[noreturn]] inline void throw_out_of_range(const std::string& what, int64_t got, int64_t end) {
  throw std::out_of_range("pymlp: " + what + " must be from 0 to " + std::to_string(end - 1) +
                          ", got " + std::to_string(got));
}

// Aligned memory that only grows.
class Scratch {
 public:
  void reserve(size_t bytes) {
    if (memory_.size() < bytes + line) memory_.resize(bytes + line);
  }

  void* get() {
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    return memory_.data() + (line - address % line) % line;
  }

 private:
  static constexpr size_t line = 64;
  std::vector<char> memory_;
};

}  // namespace pymlp
