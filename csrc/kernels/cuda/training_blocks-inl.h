// Who trains a model: a block by itself, or a cluster of blocks, each of which has a share of the
// hidden layer (training_layout-inl.h). What is summed over hidden units, each sums over its own; a
// cluster adds up its blocks' sums, in the order of the blocks, in every block with the same bits.
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

  PYMLP_DEVICE int parts(int made) const { return made; }
  PYMLP_DEVICE void add_logits(Shared<A>) const {}
  PYMLP_DEVICE void add_dinput(Shared<A>) const {}
  PYMLP_DEVICE int counted_elsewhere() const { return 0; }
  PYMLP_DEVICE double add_squares(double squares) const { return squares; }
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
      : t(thread),
        l(layout),
        logits(t.shared<A>(l.dlogits())),
        dinput(t.shared<A>(l.input())),
        squares_of_block(t.shared<double>(1)) {}

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
  PYMLP_DEVICE int parts(int) const { return 1; }
  PYMLP_DEVICE void add_logits(Shared<A> made) const {
    add(made, l.logit_parts, l.z.V, l.row_v, logits);
  }
  PYMLP_DEVICE void add_dinput(Shared<A> made) const {
    add(made, l.input_parts, l.K, l.row_k, dinput);
  }
  // Of the model from those of the block. Gradients before `counted_elsewhere`, of the embedding,
  // are in all blocks.
  PYMLP_DEVICE int counted_elsewhere() const { return is_first() ? 0 : l.hidden_weight; }
  PYMLP_DEVICE double add_squares(double squares) const {
    if (t.thread == 0) squares_of_block[0] = squares;
    t.cluster_barrier();  // all blocks' squares
    double sum = 0;
    for (int rank = 0; rank < t.cluster_size(); ++rank) {
      sum += double(squares_of_block.of(rank)[0]);
    }
    return sum;
  }

 private:
  static constexpr int W = vector_width<A>;
  using Numbers = Vector<A, W>;

  // made (parts, rows, row), of whose rows J columns count: the first part becomes the sum of all,
  // of all blocks. `own`: where others find this block's.
  PYMLP_DEVICE void add(Shared<A> made, int parts, int J, int row, Shared<A> own) const {
    for_vectors(J, row, [&](int at) {
      Numbers sum = made.template vector<W>(at);
      for (int part = 1; part < parts; ++part) {
        add_to(sum, made.template vector<W>(part * l.rows * row + at));
      }
      own.store(at, sum);
    });
    t.cluster_barrier();  // all blocks' sums
    const int size = t.cluster_size();
    for_vectors(J, row, [&](int at) {
      Numbers sum{};
#pragma unroll 4  // as many are on their way at once; eight cost more registers than there are
      for (int rank = 0; rank < size; ++rank) add_to(sum, own.of(rank).template vector<W>(at));
      made.store(at, sum);
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

  PYMLP_DEVICE static void add_to(Numbers& sum, const Numbers& x) {
#pragma unroll
    for (int c = 0; c < W; ++c) sum.element[c] += x.element[c];
  }

  Thread& t;
  const TrainingLayout l;  // a copy: nvcc keeps an object that points into another in local memory
  const Shared<A> logits, dinput;
  const Shared<double> squares_of_block;
};

}  // namespace cuda
}  // namespace pymlp
