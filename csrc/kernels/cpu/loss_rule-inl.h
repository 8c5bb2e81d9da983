// The rule of a row's loss and gradient: all that they depend on besides the row.

template <class S>
struct LossRule {
  using A = Accumulate<S>;
  const LinearCrossEntropy<S>& problem;
  SoftmaxLoss<A> softmax;
  double normalizer = 1;  // what the sum of the losses is divided by
  A common_row_scale = 1;
  A common_scale = 1;  // factor of all gradients, left for the end
  A* losses;           // (N)

  // losses: (N), where the caller does not want them in `loss`, (N) for Reduction::none.
  //
  // The common factor is left for the end because it is small for large batches: multiplied into
  // dlogits it would turn many of them into subnormal numbers, on which processors are slow.
  LossRule(const LinearCrossEntropy<S>& p, A* class_weight_scratch, A* losses, A* loss)
      : problem(p), softmax(p.V, p.options, class_weight_scratch), losses(losses) {
    const Reduction reduction = p.options.reduction;
    if (reduction == Reduction::none) {
      this->losses = loss;
      return;
    }
    if (reduction == Reduction::mean) normalizer = softmax.total_weight(p.target, p.N);
    const A factor = A((p.grad_output ? p.grad_output[0] : A(1)) / normalizer);
    // The factor of a mean over nothing is infinite, of one over NaN it is NaN: rows that are
    // ignored must not meet it.
    const bool finite = factor - factor == 0;
    (finite ? common_scale : common_row_scale) = factor;
  }

  // Factor of the gradient of row n.
  A row_scale(int64_t n) const {
    const bool per_row = problem.options.reduction == Reduction::none && problem.grad_output;
    return per_row ? problem.grad_output[n] : common_row_scale;
  }

  // After the losses of all rows: the loss, unless each row's is wanted.
  void reduce(A* loss) const {
    softmax.reduce(problem.options.reduction, losses, problem.N, normalizer, loss);
  }
};
