// hidden = tanh(x weightᵀ + bias) for x = concat_t(embedding[tokens[:, t]]) as it stands, a chunk
// of rows at a time: what the output layer of a large vocabulary goes with. Beside its products
// those of this layer are few, and x is wanted itself where it is dropped out or connected to the
// output.

// The gradient of the embedding, for the rows that occur. Rows are in order of first appearance,
// and summed in double precision: a frequent token has thousands of terms.
template <class A>
struct EmbeddingRows {
  int64_t V, E;
  int32_t* row_of;  // (V), -1 for a token that has not occurred
  int32_t* token;   // (rows), the caller's if the gradient is sparse
  double* sums;     // (rows, E)
  int64_t* count;   // (1): rows that occur, likewise

  EmbeddingRows(Workspace& workspace, const SparseRows& sparse, int64_t terms, int64_t V, int64_t E)
      : V(V), E(E) {
    const int64_t most = smaller(V, terms);
    row_of = workspace.take<int32_t>(V);
    token = sparse.tokens ? sparse.tokens : workspace.take<int32_t>(most);
    sums = workspace.take<double>(most * E);
    count = sparse.tokens ? sparse.count : workspace.take<int64_t>(1);
  }

  void clear() const {
    fill(row_of, V, int32_t(-1));
    *count = 0;
  }

  void add(int64_t id, const A* terms) const {
    if (row_of[id] < 0) {
      row_of[id] = static_cast<int32_t>(*count);
      token[*count] = static_cast<int32_t>(id);
      fill(sums + *count * E, E, 0.0);
      ++*count;
    }
    double* const sum = sums + row_of[id] * E;
    for (int64_t e = 0; e < E; ++e) sum[e] += double(terms[e]);
  }

  // out (E) = the gradient of the row of token `id`, times a factor.
  void place(int64_t id, A factor, A* out) const {
    if (row_of[id] < 0) {
      fill(out, E, A(0));
      return;
    }
    const double* const sum = sums + row_of[id] * E;
    for (int64_t e = 0; e < E; ++e) out[e] = A(sum[e]) * factor;
  }
};

template <class S>
struct GatheredLayer {
  using A = Accumulate<S>;
  const EmbedLinearTanh<S>& problem;
  const Dropout& dropout;
  int64_t T, E, H, K;
  A *weight_scratch, *bias_scratch;
  const A *weight, *bias;  // as `prepare` leaves them
  A* weight_transposed;    // (K, H)
  A* x;                    // (chunk, K), dropped out
  A* hidden;               // (chunk, H), dropped out
  A* activation;           // (chunk, H), before that
  A* dpre;                 // (chunk, H): the gradient of what tanh is taken of
  A* dx;                   // (chunk, K)
  EmbeddingRows<A> dembedding;

  GatheredLayer(Workspace& workspace, const EmbedLinearTanh<S>& p, const Dropout& dropout,
                const SparseRows& sparse, int64_t chunk, bool gradients)
      : problem(p),
        dropout(dropout),
        T(p.T),
        E(p.E),
        H(p.H),
        K(p.T * p.E),
        weight_scratch(workspace.take<A>(scratch_size<S>(H * K))),
        bias_scratch(workspace.take<A>(scratch_size<S>(H))),
        weight(readable(p.weight, weight_scratch)),
        bias(readable(p.bias, bias_scratch)),
        weight_transposed(workspace.take<A>(K * H)),
        x(workspace.take<A>(chunk * K)),
        hidden(workspace.take<A>(chunk * H)),
        activation(dropout.input ? workspace.take<A>(chunk * H) : hidden),
        dpre(workspace.take<A>(gradients ? chunk * H : 0)),
        dx(workspace.take<A>(gradients ? chunk * K : 0)),
        dembedding(workspace, sparse, gradients ? p.N * p.T : 0, gradients ? p.V : 0, p.E) {}

  void prepare() const {
    widened(problem.weight, H * K, weight_scratch);
    widened(problem.bias, H, bias_scratch);
    transpose(H, K, weight, K, weight_transposed, H);
    dembedding.clear();
  }

  int64_t forward_cost() const { return H * (K + exp_cost) + K; }
  int64_t backward_cost() const { return H * (K + 1) + 2 * K; }

  // Rows [begin, end) of the chunk that starts at example `first`.
  void forward(int64_t first, int64_t begin, int64_t end) const {
    for (int64_t n = begin; n < end; ++n) gather(first + n, x + n * K);
    drop(dropout.input, first, begin, end, K, x);
    const int64_t size = (end - begin) * H;
    A* const out = activation + begin * H;
    gemm<A>(end - begin, H, K, {x + begin * K, K, 1}, weight_transposed, H, out, H, false);
    for (int64_t n = begin; bias && n < end; ++n) {
      for (int64_t h = 0; h < H; ++h) activation[n * H + h] += bias[h];
    }
    for_vectors<A>(
        0, size, [&](int64_t i, auto lanes) { store(out + i, tanh(load(out + i, lanes)), lanes); });
    if (!dropout.input) return;
    std::memcpy(hidden + begin * H, out, static_cast<size_t>(size) * sizeof(A));
    drop(dropout.hidden, first, begin, end, H, hidden);
  }

  // Rows [begin, end) of dpre and dx from the gradients of hidden (H, end - begin) and, if
  // `direct`, below it that of x (K, end - begin), both transposed.
  void backward(const A* dhidden, bool direct, int64_t first, int64_t begin, int64_t end) const {
    const int64_t rows = end - begin;
    transpose(H, rows, dhidden, rows, dpre + begin * H, H);
    if (direct) transpose(K, rows, dhidden + H * rows, rows, dx + begin * K, K);
    drop(dropout.hidden, first, begin, end, H, dpre);
    for_vectors<A>(begin * H, end * H, [&](int64_t i, auto lanes) {
      const Vec<A> y = load(activation + i, lanes);
      store(dpre + i, load(dpre + i, lanes) * (constant(A(1)) - y * y), lanes);
    });
    gemm<A>(rows, K, H, {dpre + begin * H, H, 1}, weight, K, dx + begin * K, K, direct);
    drop(dropout.input, first, begin, end, K, dx);
  }

  // Rows [h0, h1) of dweight and dbias, added to those of earlier chunks if `add`.
  void add_weight(int64_t rows, int64_t h0, int64_t h1, bool add, A* dweight, A* dbias) const {
    gemm<A>(h1 - h0, K, rows, {dpre + h0, 1, H}, x, K, dweight + h0 * K, K, add);
    const A one = 1;
    if (dbias) gemm<A>(1, h1 - h0, rows, {&one, 0, 0}, dpre + h0, H, dbias + h0, h1 - h0, add);
  }

  void add_embedding(int64_t first, int64_t rows) const {
    for (int64_t i = 0; i < rows * T; ++i)
      dembedding.add(problem.tokens[first * T + i], dx + i * E);
  }

 private:
  void gather(int64_t example, A* to) const {
    for (int64_t t = 0; t < T; ++t, to += E) {
      const S* from = problem.embedding + problem.tokens[example * T + t] * E;
      const A* const row = widened(from, E, to);
      if constexpr (is_wide<S>) std::memcpy(to, row, static_cast<size_t>(E) * sizeof(A));
    }
  }

  // Rows [begin, end) of a (chunk, width) times what dropout multiplies them with.
  void drop(const uint8_t* kept, int64_t first, int64_t begin, int64_t end, int64_t width,
            A* a) const {
    if (!dropout.input) return;
    const A scale = A(1 / (1 - dropout.p));
    for (int64_t i = begin * width; i < end * width; ++i) {
      a[i] = kept[first * width + i] ? a[i] * scale : A(0);
    }
  }
};
