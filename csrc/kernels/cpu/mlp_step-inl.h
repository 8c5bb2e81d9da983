// Steps of training: the gradients of mlp_cross_entropy, and the update of what a column block owns
// as soon as its gradients are complete, by the thread that has them in its caches. Made once for
// many steps.

template <class A>
struct MlpStepKernel {
  MlpCrossEntropyKernel<A> kernel;
  MlpUpdatePass<A> update;
  bool update_early;               // products by rows are of the weight as it was in the forward
  alignas(64) OptimizerStep step;  // changes, so it has a cache line of its own

  MlpStepKernel(Workspace& workspace, const MlpStep<A>& p)
      : kernel(workspace, p.loss, true),
        update(p.update),
        update_early(kernel.first_layer.products_by_block()) {
    kernel.place(p.gradients);
  }

  void run(const OptimizerStep& this_step, A* loss, const Parallel& parallel) {
    step = this_step;
    const A factor = kernel.pass(loss, true, parallel, [this](int64_t block, A scale) {
      if (update_early) update.update_columns(block, step, scale);
    });
    kernel.first_layer.finish_embedding(kernel.dembedding, parallel);
    if (update_early) {
      update.finish(step, factor, parallel);
    } else {
      update.run(step, factor, parallel);
    }
  }
};

// A matrix (rows, H) to and from column blocks.
template <class A>
inline void to_blocks(const ColumnView<A>& blocks, const A* dense) {
  for (int64_t b = 0; b < blocks.columns.count; ++b) {
    for (int64_t r = 0; r < blocks.rows; ++r) {
      std::memcpy(blocks[b] + r * blocks.ld(),
                  dense + r * blocks.columns.H + blocks.columns.begin(b),
                  static_cast<size_t>(blocks.columns.width(b)) * sizeof(A));
    }
  }
}

template <class A>
inline void from_blocks(const ColumnView<const A>& blocks, A* dense) {
  for (int64_t b = 0; b < blocks.columns.count; ++b) {
    for (int64_t r = 0; r < blocks.rows; ++r) {
      std::memcpy(dense + r * blocks.columns.H + blocks.columns.begin(b),
                  blocks[b] + r * blocks.ld(),
                  static_cast<size_t>(blocks.columns.width(b)) * sizeof(A));
    }
  }
}
