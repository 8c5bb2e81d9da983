#include "engine/sampled_output.h"

#include <algorithm>
#include <utility>

namespace pymlp {

namespace {

template <class A>
std::array<A*, 3> arrays_of(const Trained<A>& p) {
  return {p.parameter, p.first, p.second};
}

}  // namespace

template <class A>
SampledOutput<A>::SampledOutput(const ModelSizes& sizes, int states, Candidates candidates)
    : sizes_(sizes),
      candidates_(std::move(candidates)),
      bias_with_offsets_(static_cast<size_t>(candidates_.most())) {
  for (int i = first_output; i < sizes.n_parameters(); ++i) {
    A* rows[3] = {};
    for (int j = 0; j <= states; ++j) {
      rows_[i][j].resize(static_cast<size_t>(candidates_.most() * width(i)));
      rows[j] = rows_[i][j].data();
    }
    gathered_[i] = {rows[0], false, rows[1], rows[2]};
  }
}

template <class A>
void SampledOutput<A>::gather(int64_t step, Ids targets, const Trained<A>* parameters,
                              const Parallel& parallel) {
  candidates_.draw(step, targets);
  for (int i = 0; i < sizes_.n_parameters(); ++i) {
    if (i < first_output) gathered_[i] = parameters[i];
    gathered_[i].frozen = parameters[i].frozen;
  }
  for_rows(parameters, false, parallel, Stop::anywhere,
           [](A* here, A* there, int64_t row) { std::copy_n(there, row, here); });
  const A* const bias = gathered_[4].parameter;
  for (int64_t r = 0; r < candidates_.count(); ++r) {
    bias_with_offsets_[static_cast<size_t>(r)] = bias[r] + A(candidates_.offsets()[r]);
  }
}

template <class A>
void SampledOutput<A>::scatter(const Trained<A>* parameters, const Parallel& parallel) const {
  for_rows(parameters, true, parallel, Stop::never,
           [](A* here, A* there, int64_t row) { std::copy_n(here, row, there); });
}

template <class A>
int64_t SampledOutput<A>::width(int parameter) const {
  return sizes_.with_outputs(1)[static_cast<size_t>(parameter)];
}

template <class A>
template <class Body>
void SampledOutput<A>::for_rows(const Trained<A>* parameters, bool trained_only,
                                const Parallel& parallel, Stop stop, const Body& body) const {
  const int64_t all = sizes_.H + 1 + width(5);
  parallel.run({"candidates", candidates_.count(), all, stop}, [&](int64_t begin, int64_t end) {
    for (int i = first_output; i < sizes_.n_parameters(); ++i) {
      if (width(i) == 0 || (trained_only && parameters[i].frozen)) continue;
      const int64_t row = width(i);
      const auto here = arrays_of(gathered_[i]), there = arrays_of(parameters[i]);
      for (size_t j = 0; j < here.size() && here[j]; ++j) {
        for (int64_t r = begin; r < end; ++r) {
          body(here[j] + r * row, there[j] + candidates_.words()[r] * row, row);
        }
      }
    }
  });
}

template class SampledOutput<float>;
template class SampledOutput<double>;

}  // namespace pymlp
