// The output layer of a step of the sampled softmax: the rows of the candidates, side by side.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/candidates.h"
#include "engine/model.h"

namespace pymlp {

template <class A>
class SampledOutput {
 public:
  // states: arrays that the optimizer keeps of a parameter.
  SampledOutput(const ModelSizes& sizes, int states, Candidates candidates);

  // Draws the candidates and copies their rows of the parameters and of their state.
  void gather(int64_t step, Ids targets, const Trained<A>* parameters, const Parallel& parallel);
  // Puts the rows back. The other rows stay as they are.
  void scatter(const Trained<A>* parameters, const Parallel& parallel) const;

  const Candidates& candidates() const { return candidates_; }
  // The model's parameters, those of the output layer being the candidates' rows.
  const Trained<A>* parameters() const { return gathered_.data(); }
  const A* bias_with_offsets() const { return bias_with_offsets_.data(); }  // (candidates)

 private:
  static constexpr int first_output = 3;  // output weight and bias, direct weight

  int64_t width(int parameter) const;  // of a word's row
  template <class Body>
  void for_rows(const Trained<A>* parameters, bool trained_only, const Parallel& parallel,
                Stop stop, const Body& body) const;

  ModelSizes sizes_;
  Candidates candidates_;
  std::array<Trained<A>, most_parameters> gathered_;
  std::vector<A> rows_[most_parameters][3];  // of a parameter and its state
  std::vector<A> bias_with_offsets_;
};

}  // namespace pymlp
