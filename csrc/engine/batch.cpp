#include "engine/batch.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>

namespace pymlp {

namespace {

// Examples lie anywhere: they are asked for so many before it is their turn.
constexpr int64_t ahead = 16;

}  // namespace

Batch::Batch(const ModelSizes& sizes, const TrainingData& data, int64_t batch_size)
    : sizes_(sizes),
      data_(data),
      tokens_(static_cast<size_t>(batch_size * sizes.T)),
      targets_(static_cast<size_t>(batch_size)) {}

void Batch::gather(const int64_t* indices, const Parallel& parallel) {
  const auto B = static_cast<int64_t>(targets_.size());
  std::atomic<bool> in_range{true};
  parallel.run({"batch", B, 16 * (sizes_.T + 1)}, [&](int64_t begin, int64_t end) {
    const bool good =
        data_.tokens ? gather_table(indices, begin, end) : gather_stream(indices, begin, end);
    if (!good) in_range = false;
  });
  if (!in_range) throw_bad_id(indices);
}

// Examples [begin, end) of the batch as the kernels want them; false if an id is out of range.
bool Batch::gather_table(const int64_t* indices, int64_t begin, int64_t end) {
  const int64_t V = sizes_.V, T = sizes_.T;
  bool bad = false;
  int32_t* to = tokens_.data() + begin * T;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t next = indices[std::min(b + ahead, end - 1)];
    __builtin_prefetch(data_.tokens + next * T);
    __builtin_prefetch(data_.targets + next);
    const int64_t* from = data_.tokens + indices[b] * T;
    for (int64_t t = 0; t < T; ++t) {
      bad |= outside(from[t], V);
      *to++ = static_cast<int32_t>(from[t]);
    }
    const int64_t target = data_.targets[indices[b]];
    bad |= outside(target, V);
    targets_[static_cast<size_t>(b)] = static_cast<int32_t>(target);
  }
  return !bad;
}

bool Batch::gather_stream(const int64_t* indices, int64_t begin, int64_t end) {
  const int64_t V = sizes_.V, T = sizes_.T;
  bool bad = false;
  int32_t* to = tokens_.data() + begin * T;
  for (int64_t b = begin; b < end; ++b, to += T) {
    __builtin_prefetch(data_.stream.ids + data_.begin + indices[std::min(b + ahead, end - 1)]);
    const int64_t position = data_.begin + indices[b];
    data::write_context(data_.stream, position, T, to);
    for (int64_t t = 0; t < T; ++t) bad |= outside(to[t], V);
    const int32_t target = data_.stream.ids[position];
    bad |= outside(target, V);
    targets_[static_cast<size_t>(b)] = target;
  }
  return !bad;
}

// Says which id of the batch it is.
void Batch::throw_bad_id(const int64_t* indices) const {
  const int64_t T = sizes_.T;
  std::vector<int64_t> context(static_cast<size_t>(T));
  for (size_t b = 0; b < targets_.size(); ++b) {
    const int64_t n = indices[b];
    const std::string place = "of example " + std::to_string(n);
    int64_t target;
    if (data_.tokens) {
      std::copy_n(data_.tokens + n * T, T, context.begin());
      target = data_.targets[n];
    } else {
      data::write_context(data_.stream, data_.begin + n, T, context.data());
      target = data_.stream.ids[data_.begin + n];
    }
    for (int64_t id : context) {
      if (outside(id, sizes_.V)) throw_out_of_range("tokens " + place, id, sizes_.V);
    }
    if (outside(target, sizes_.V)) throw_out_of_range("the target " + place, target, sizes_.V);
  }
  throw std::out_of_range("pymlp: the examples were changed during a step");
}

}  // namespace pymlp
