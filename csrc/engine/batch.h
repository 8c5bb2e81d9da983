// The examples of one training step, gathered from wherever they are kept.
#pragma once

#include <cstdint>
#include <vector>

#include "data/stream.h"
#include "engine/model.h"
#include "kernels/kernels.h"

namespace pymlp {

// The source of examples: a table, or a stream, whose example n is the token at begin + n after
// the T tokens before it.
struct TrainingData {
  int64_t N = 0;                     // examples
  const int64_t* tokens = nullptr;   // (N, T); null: the stream is read
  const int64_t* targets = nullptr;  // (N)
  data::TokenStream stream = {};
  int64_t begin = 0;
};

class Batch {
 public:
  Batch(const ModelSizes& sizes, const TrainingData& data, int64_t batch_size);

  // Fetches the examples with these indices (B), each in [0, N).
  // std::out_of_range: for an id that is not in [0, V).
  void gather(const int64_t* indices, const Parallel& parallel);

  Ids tokens() const { return {tokens_.data(), false}; }    // (B, T)
  Ids targets() const { return {targets_.data(), false}; }  // (B)

 private:
  bool gather_table(const int64_t* indices, int64_t begin, int64_t end);
  bool gather_stream(const int64_t* indices, int64_t begin, int64_t end);
  [[noreturn]] void throw_bad_id(const int64_t* indices) const;

  ModelSizes sizes_;
  TrainingData data_;
  std::vector<int32_t> tokens_, targets_;
};

}  // namespace pymlp
