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

// body(where it is in blocks, where it is in rows of H, its width) for each piece of a row of a
// matrix (rows, H) that lies together both ways.
template <class Body>
inline void for_pieces(const ColumnBlocks& columns, int64_t rows, const Body& body) {
  for (int64_t block = 0; block < columns.count; ++block) {
    for (int64_t r = 0; r < rows; ++r) {
      body((block * rows + r) * columns.stride, r * columns.H + columns.begin(block),
           columns.width(block));
    }
  }
}

template <class A>
inline void to_blocks(const ColumnBlocks& columns, int64_t rows, const A* dense, A* blocks) {
  for_pieces(columns, rows, [&](int64_t in_blocks, int64_t in_dense, int64_t width) {
    std::memcpy(blocks + in_blocks, dense + in_dense, static_cast<size_t>(width) * sizeof(A));
  });
}

template <class A>
inline void from_blocks(const ColumnBlocks& columns, int64_t rows, const A* blocks, A* dense) {
  for_pieces(columns, rows, [&](int64_t in_blocks, int64_t in_dense, int64_t width) {
    std::memcpy(dense + in_dense, blocks + in_blocks, static_cast<size_t>(width) * sizeof(A));
  });
}
