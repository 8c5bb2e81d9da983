// The KernelTable of the instruction set whose source file includes this: each entry makes the
// kernel's scratch layout and runs it.

template <class S>
constexpr Kernels<S> make_kernels() {
  using A = Accumulate<S>;
  Kernels<S> k{};
  k.exp = [](int64_t n, const A* in, A* out) {
    for_vectors<A>(0, n,
                   [&](int64_t i, auto lanes) { store(out + i, exp(load(in + i, lanes)), lanes); });
  };
  k.tanh = [](int64_t n, const A* in, A* out) {
    for_vectors<A>(
        0, n, [&](int64_t i, auto lanes) { store(out + i, tanh(load(in + i, lanes)), lanes); });
  };
  k.embed_linear_tanh_forward_workspace = [](const EmbedLinearTanh<S>& p) {
    return measure<EmbedLinearTanhForward<S>>(p);
  };
  k.embed_linear_tanh_forward = [](const EmbedLinearTanh<S>& p, S* hidden, void* workspace,
                                   const Parallel& parallel) {
    make<EmbedLinearTanhForward<S>>(workspace, p).run(hidden, parallel);
  };
  k.embed_linear_tanh_backward_workspace = [](const EmbedLinearTanh<S>& p) {
    return measure<EmbedLinearTanhBackward<S>>(p);
  };
  k.embed_linear_tanh_backward = [](const EmbedLinearTanh<S>& p, const S* hidden, const S* dhidden,
                                    const EmbedLinearTanhGradients<S>& gradients, void* workspace,
                                    const Parallel& parallel) {
    make<EmbedLinearTanhBackward<S>>(workspace, p).run(hidden, dhidden, gradients, parallel);
  };
  k.cross_entropy_forward_workspace = [](const CrossEntropy<S>& p) {
    return measure<CrossEntropyForward<S>>(p);
  };
  k.cross_entropy_forward = [](const CrossEntropy<S>& p, A* loss, A* softmax, void* workspace,
                               const Parallel& parallel) {
    make<CrossEntropyForward<S>>(workspace, p).run(loss, softmax, parallel);
  };
  k.cross_entropy_backward_workspace = [](const CrossEntropy<S>& p) {
    return measure<CrossEntropyBackward<S>>(p);
  };
  k.cross_entropy_backward = [](const CrossEntropy<S>& p, const A* softmax, const A* grad_output,
                                S* dinput, void* workspace, const Parallel& parallel) {
    make<CrossEntropyBackward<S>>(workspace, p).run(softmax, grad_output, dinput, parallel);
  };
  k.linear_cross_entropy_workspace = [](const LinearCrossEntropy<S>& p, bool gradients) {
    return divides_vocabulary(p.V, p.H, false) ? measure<LinearVocabularyKernel<S>>(p, gradients)
                                               : measure<LinearCrossEntropyKernel<S>>(p, gradients);
  };
  k.linear_cross_entropy = [](const LinearCrossEntropy<S>& p, A* loss,
                              const LinearCrossEntropyGradients<S>* gradients, void* workspace,
                              const Parallel& parallel) {
    const bool wanted = gradients != nullptr;
    if (divides_vocabulary(p.V, p.H, false)) {
      make<LinearVocabularyKernel<S>>(workspace, p, wanted).run(loss, gradients, parallel);
    } else {
      make<LinearCrossEntropyKernel<S>>(workspace, p, wanted).run(loss, gradients, parallel);
    }
  };
  k.mlp_cross_entropy_workspace = [](const MlpCrossEntropy<S>& p, bool gradients) {
    return is_by_vocabulary(p) ? measure<MlpVocabularyKernel<S>>(p, gradients)
                               : measure<MlpCrossEntropyKernel<S>>(p, gradients);
  };
  k.mlp_cross_entropy = [](const MlpCrossEntropy<S>& p, A* loss,
                           const MlpCrossEntropyGradients<S>* gradients, void* workspace,
                           const Parallel& parallel) {
    const bool wanted = gradients != nullptr;
    if (is_by_vocabulary(p)) {
      make<MlpVocabularyKernel<S>>(workspace, p, wanted).run(loss, gradients, parallel);
    } else {
      make<MlpCrossEntropyKernel<S>>(workspace, p, wanted).run(loss, gradients, parallel);
    }
  };
  k.mlp_logits_workspace = [](const MlpLogits<A>& p) { return measure<MlpLogitsKernel<A>>(p); };
  k.mlp_logits = [](const MlpLogits<A>& p, A* logits, void* workspace, const Parallel& parallel) {
    make<MlpLogitsKernel<A>>(workspace, p).run(logits, parallel);
  };
  k.mlp_target_logits_workspace = [](const MlpLogits<A>& p) {
    return measure<MlpTargetLogitsKernel<A>>(p);
  };
  k.mlp_target_logits = [](const MlpLogits<A>& p, Ids targets, A* logits, void* workspace,
                           const Parallel& parallel) {
    make<MlpTargetLogitsKernel<A>>(workspace, p).run(targets, logits, parallel);
  };
  k.mlp_update = [](const MlpUpdate<A>& p, const Parallel& parallel) {
    using ByVocabulary = MlpVocabularyUpdate<A>;
    const A factor = A(p.step.factor);
    if (p.output_weight_in_blocks) {
      MlpUpdatePass<A>(p).run(p.step, factor, parallel);
    } else {
      ByVocabulary(p).run(ByVocabulary::output_layer, p.step, factor, parallel, Stop::before);
    }
  };
  k.mlp_steps_workspace = [](const MlpStep<A>& p) {
    using Steps = KeptSteps<A>;
    return is_by_vocabulary(p.loss) ? Steps::template bytes<MlpVocabularyStepKernel<A>>(p)
                                    : Steps::template bytes<MlpStepKernel<A>>(p);
  };
  k.mlp_steps = [](const MlpStep<A>& p, void* workspace) {
    using Steps = KeptSteps<A>;
    if (is_by_vocabulary(p.loss)) {
      Steps::template keep_at<MlpVocabularyStepKernel<A>>(workspace, p);
    } else {
      Steps::template keep_at<MlpStepKernel<A>>(workspace, p);
    }
  };
  k.mlp_step = [](void* workspace, const OptimizerStep& step, A* loss, const Parallel& parallel) {
    const auto* steps = static_cast<const KeptSteps<A>*>(workspace);
    steps->run(static_cast<char*>(workspace) + KeptSteps<A>::room, step, loss, parallel);
  };
  k.in_blocks_size = [](int64_t N, int64_t rows, int64_t H) {
    return ColumnView<A>{{H, N}, nullptr, rows, true}.size();
  };
  k.to_blocks = [](int64_t N, int64_t rows, int64_t H, const A* dense, A* blocks) {
    to_blocks<A>({H, N}, rows, dense, blocks);
  };
  k.from_blocks = [](int64_t N, int64_t rows, int64_t H, const A* blocks, A* dense) {
    from_blocks<A>({H, N}, rows, blocks, dense);
  };
  k.sum_of_squares = sum_of_squares<A>;
  return k;
}

constexpr KernelTable make_table(const char* isa) {
  return {isa,
          Vec<float>::size,
          make_kernels<float>(),
          make_kernels<double>(),
          make_kernels<bfloat16>(),
          make_kernels<float16>()};
}
