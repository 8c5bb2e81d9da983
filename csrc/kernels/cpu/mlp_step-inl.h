// Steps of training: the gradients of mlp_cross_entropy, and the update of what a column block owns
// as soon as its gradients are complete, by the thread that has them in its caches. Made once for
// many steps.

// Whether a phase of so many multiply-adds ends within some ten milliseconds.
inline bool short_enough(int64_t cost) { return cost < int64_t(1) << 32; }

template <class A>
struct MlpStepKernel {
  MlpCrossEntropyKernel<A> kernel;
  MlpUpdatePass<A> update;
  bool update_early;
  alignas(64) OptimizerStep step;  // changes, so it has a cache line of its own

  MlpStepKernel(Workspace& workspace, const MlpStep<A>& p)
      : kernel(workspace, p.loss, true),
        update(p.update),
        // Products by rows are of the weight as it was in the forward. A phase that updates cannot
        // be abandoned once it has begun, so it must not be long.
        update_early(kernel.first_layer.products_by_block() &&
                     short_enough(kernel.chunk * 2 * kernel.V * kernel.H)) {
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

// The same where the vocabulary is divided.
template <class A>
struct MlpVocabularyStepKernel {
  MlpVocabularyKernel<A> kernel;
  MlpVocabularyUpdate<A> update;
  bool update_early;
  alignas(64) OptimizerStep step;

  MlpVocabularyStepKernel(Workspace& workspace, const MlpStep<A>& p)
      : kernel(workspace, p.loss, true),
        update(p.update),
        update_early(short_enough(kernel.output.chunk * 2 * kernel.V * kernel.output.width)) {
    kernel.place(p.gradients);
  }

  void run(const OptimizerStep& this_step, A* loss, const Parallel& parallel) {
    using Update = MlpVocabularyUpdate<A>;
    step = this_step;
    const A factor =
        kernel.pass(loss, true, parallel, update_early, [this](int64_t v0, int64_t v1, A scale) {
          if (update_early) update.update_rows(v0, v1, step, scale);
        });
    const Stop stop = update_early ? Stop::never : Stop::before;
    kernel.place_embedding(A(1), parallel, stop);
    update.run(update_early ? Update::first_layer : Update::output_layer, step, factor, parallel,
               stop);
  }
};

// Steps as they are kept in the caller's memory: how to carry one out, then the kernel.
template <class A>
struct KeptSteps {
  static constexpr size_t room = 64;
  void (*run)(void* kernel, const OptimizerStep&, A* loss, const Parallel&);

  template <class Kernel>
  static void keep_at(void* memory, const MlpStep<A>& problem) {
    keep<Kernel>(static_cast<char*>(memory) + room, problem);
    static_cast<KeptSteps*>(memory)->run = [](void* kernel, const OptimizerStep& step, A* loss,
                                              const Parallel& parallel) {
      static_cast<Kernel*>(kernel)->run(step, loss, parallel);
    };
  }
  template <class Kernel>
  static size_t bytes(const MlpStep<A>& problem) {
    return room + kept_bytes<Kernel> + measure<Kernel>(problem);
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
