// Who trains a model: a block by itself, or a cluster of blocks, each of which has a share of the
// hidden layer (training_layout-inl.h). What is summed over hidden units, each sums over its own; a
// cluster adds up its blocks' sums, in every block with the same bits: those of one block.
#pragma once

#include "kernels/cuda/training_layout-inl.h"

namespace pymlp {
namespace cuda {

// Of what ClusterOfBlocks says, what is left where there is nobody else.
template <class A>
class OneBlock {
 public:
  PYMLP_DEVICE static TrainingLayout layout(Thread&, const TrainingSizes& sizes) {
    return TrainingLayout(sizes);
  }
  PYMLP_DEVICE OneBlock(Thread&, const TrainingLayout&) {}

  PYMLP_DEVICE bool is_first() const { return true; }
  PYMLP_DEVICE void end() const {}
  PYMLP_DEVICE A* own(A* arrays, int) const { return arrays; }
  PYMLP_DEVICE StepRates<A>* own_rates(const TrainingModel<A>& m) const { return m.step_rates; }

  PYMLP_DEVICE int parts(const SumParts& made) const { return made.parts; }
  PYMLP_DEVICE void add_logits(Shared<A>) const {}
  PYMLP_DEVICE void add_dinput(Shared<A>) const {}
  PYMLP_DEVICE void share_squares(Thread& t) const { t.barrier(); }
  PYMLP_DEVICE Shared<double> squares_of(Shared<double> own, int) const { return own; }
};

// What the others read is in arrays that serve nothing else: those of one sum are written again
// after the cluster barrier of another, when all have read them.
template <class A>
class ClusterOfBlocks {
 public:
  PYMLP_DEVICE static TrainingLayout layout(Thread& t, const TrainingSizes& sizes) {
    return TrainingLayout(sizes, t.cluster_size(), t.cluster_rank());
  }
  PYMLP_DEVICE ClusterOfBlocks(Thread& thread, const TrainingLayout& layout)
      : t(thread), l(layout), logits(t.shared<A>(l.dlogits())), dinput(t.shared<A>(l.input())) {}

  // The one that writes what the model has once.
  PYMLP_DEVICE bool is_first() const { return t.cluster_rank() == 0; }
  // No block leaves while another may read its memory.
  PYMLP_DEVICE void end() const { t.cluster_barrier(); }

  // This block's part of the workspace.
  PYMLP_DEVICE A* own(A* arrays, int count) const {
    return arrays + int64_t(t.cluster_rank()) * count * l.parameters;
  }
  PYMLP_DEVICE StepRates<A>* own_rates(const TrainingModel<A>& m) const {
    return m.step_rates + t.cluster_rank() * m.steps;
  }

  // The parts of a sum that are left for each block to add.
  PYMLP_DEVICE int parts(const SumParts&) const { return 1; }
  PYMLP_DEVICE void add_logits(Shared<A> made) const {
    add(made, l.logit_parts.parts, l.z.V, l.row_v, logits);
  }
  PYMLP_DEVICE void add_dinput(Shared<A> made) const {
    add(made, l.input_parts.parts, l.K, l.row_k, dinput);
  }
  PYMLP_DEVICE void share_squares(Thread&) const { t.cluster_barrier(); }
  // Those of the block that has a part of the model's.
  PYMLP_DEVICE Shared<double> squares_of(Shared<double> own, int part) const {
    return own.of(part / l.logit_parts.parts);
  }

 private:
  static constexpr int W = vector_width<A>;

  // made (parts, rows, row), of whose rows J columns count: the first part becomes the sum of all,
  // of all blocks. `own`: where others find this block's.
  PYMLP_DEVICE void add(Shared<A> made, int parts, int J, int row, Shared<A> own) const {
    for_vectors(J, row, [&](int at) {
      own.store(at, sum_of_pairs(parts, [&](int part) {
                  return made.template vector<W>(part * l.rows * row + at);
                }));
    });
    t.cluster_barrier();  // all blocks' sums
    const int size = t.cluster_size();
    for_vectors(J, row, [&](int at) {
      made.store(at,
                 sum_of_pairs(size, [&](int rank) { return own.of(rank).template vector<W>(at); }));
    });
    t.barrier();  // the sums of all blocks
  }

  template <class Body>
  PYMLP_DEVICE void for_vectors(int J, int row, const Body& body) const {
    const int vectors = (J + W - 1) / W;
    for (int n = t.thread; n < l.rows * vectors; n += t.threads) {
      body(n / vectors * row + W * (n % vectors));
    }
  }

  Thread& t;
  const TrainingLayout l;  // a copy: nvcc keeps an object that points into another in local memory
  const Shared<A> logits, dinput;
};

}  // namespace cuda
}  // namespace pymlp
