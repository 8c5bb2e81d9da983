// hidden = tanh(concat_t(embedding[tokens[:, t]]) weightᵀ + bias), by projection tables.
//
// The product splits by position, concat(...) weightᵀ = Σ_t P_t[tokens_t] with P_t = embedding
// weight_tᵀ, and P_t is needed only for the tokens that occur. A batch of N examples has at most
// min(V, N) of them a position: the products cost Σ_t distinct_t * E * H instead of N * T * E * H,
// and what remains per example is T row additions (Devlin et al. 2014 use the same tables for
// decoding). The backward runs the same way in reverse: rows of dpre are added up per distinct
// token into G, then dweight_t = G_tᵀ embedding and dembedding += G_t weight_t.

// Everything that forward and backward compute on the way, and the phases they are made of.
template <class S>
struct EmbedLinearTanhPass {
  using A = Accumulate<S>;
  const EmbedLinearTanh<S>& problem;
  int64_t N, T, V, E, H, K;
  TokenIndex index;
  A *embedding_scratch, *weight_scratch, *bias_scratch;
  const A *embedding = nullptr, *weight = nullptr, *bias = nullptr;
  A* rows;  // (index.rows(), E), the distinct embedding rows
  // Of the backward:
  SumBlocks blocks;
  A* G = nullptr;                   // (index.rows(), H), sums of dpre over the examples of each row
  A* block_sums = nullptr;          // (blocks.count, H)
  A* products = nullptr;            // (index.rows(), E)
  A* dweight_transposed = nullptr;  // (K, H)

  EmbedLinearTanhPass(Workspace& workspace, const EmbedLinearTanh<S>& p)
      : problem(p),
        N(p.N),
        T(p.T),
        V(p.V),
        E(p.E),
        H(p.H),
        K(p.T * p.E),
        index(workspace, N, T, V) {
    embedding_scratch = workspace.take<A>(scratch_size<S>(V * E));
    weight_scratch = workspace.take<A>(scratch_size<S>(H * K));
    bias_scratch = workspace.take<A>(scratch_size<S>(H));
    rows = workspace.take<A>(max_rows() * E);
  }

  void take_backward_scratch(Workspace& workspace) {
    blocks.take_scratch(workspace, N, T, V);
    G = workspace.take<A>(max_rows() * H);
    block_sums = workspace.take<A>(SumBlocks::max_count(N, T) * H);
    products = workspace.take<A>(max_rows() * E);
    dweight_transposed = workspace.take<A>(K * H);
  }

  int64_t max_rows() const { return TokenIndex::max_rows(N, T, V); }

  void prepare(bool backward, const Parallel& parallel) {
    embedding = widened(problem.embedding, V * E, embedding_scratch);
    weight = widened(problem.weight, H * K, weight_scratch);
    bias = widened(problem.bias, H, bias_scratch);
    alone(parallel, "index", [&] {
      index.build(problem.tokens, N, V);
      if (backward) blocks.build(index, N);
      for (int64_t r = 0; r < index.rows(); ++r) {
        const A* from = embedding + index.token[r] * E;
        for (int64_t e = 0; e < E; ++e) rows[r * E + e] = from[e];
      }
    });
  }

  // Columns [h0, h1) of weight_transposed (K, H).
  void transpose_columns(int64_t h0, int64_t h1, A* weight_transposed) const {
    transpose(h1 - h0, K, weight + h0 * K, K, weight_transposed + h0, H);
  }

  // table (index.rows(), H): P_t = embedding weight_tᵀ.
  void project(const A* weight_transposed, A* table, const Parallel& parallel) const {
    parallel.run({"project", index.rows(), E * H}, [&](int64_t begin, int64_t end) {
      index.for_positions(begin, end, [&](int64_t t, int64_t b, int64_t e) {
        gemm<A>(e - b, H, E, {rows + b * E, E, 1}, weight_transposed + t * E * H, H, table + b * H,
                H, false);
      });
    });
  }

  // out (end - begin, H): the hidden layer of examples [begin, end).
  void hidden_rows(const A* table, int64_t begin, int64_t end, A* out) const {
    for (int64_t n = begin; n < end; ++n, out += H) {
      const int32_t* slot = index.slot + n * T;
      for_vectors<A>(0, H, [&](int64_t h, auto lanes) {
        Vec<A> sum = bias ? load(bias + h, lanes) : constant(A(0));
        for (int64_t t = 0; t < T; ++t) sum = sum + load(table + slot[t] * H + h, lanes);
        store(out + h, tanh(sum), lanes);
      });
    }
  }

  // Columns [h0, h1) of G: adds dpre = dhidden (1 - hidden²) of examples [begin, end) to the rows
  // of their tokens. hidden, dhidden: (end - begin, H). Called for all examples in order.
  void scatter_columns(const A* hidden, const A* dhidden, int64_t begin, int64_t end, int64_t h0,
                       int64_t h1) const {
    if (begin == 0) {
      for (int64_t r = 0; r < index.rows(); ++r) fill(G + r * H + h0, h1 - h0, A(0));
    }
    int64_t k = blocks.first_after(begin);
    for (int64_t n = begin; n < end;) {
      const int64_t stop = k < blocks.count ? smaller(end, blocks.end[k]) : end;
      const int64_t offset = (n - begin) * H;
      add_terms(hidden + offset, dhidden + offset, n, stop, h0, h1);
      for (; k < blocks.count && blocks.end[k] == stop; ++k) set_aside(k, h0, h1);
      n = stop;
    }
  }

  // Not inlined: the loop needs the registers for itself.
  __attribute__((noinline)) void add_terms(const A* hidden, const A* dhidden, int64_t begin,
                                           int64_t end, int64_t h0, int64_t h1) const {
    A* const sums = G;
    for (int64_t n = begin; n < end; ++n, hidden += H, dhidden += H) {
      const int32_t* slot = index.slot + n * T;
      for_vectors<A>(h0, h1, [&](int64_t h, auto lanes) {
        const Vec<A> y = load(hidden + h, lanes);
        const Vec<A> dpre = load(dhidden + h, lanes) * (constant(A(1)) - y * y);
        for (int64_t t = 0; t < T; ++t) {
          A* sum = sums + slot[t] * H + h;
          store(sum, load(sum, lanes) + dpre, lanes);
        }
      });
    }
  }

  // The k-th block of terms is complete: its row of G starts again from zero.
  void set_aside(int64_t k, int64_t h0, int64_t h1) const {
    A* sum = G + blocks.row[k] * H;
    for (int64_t h = h0; h < h1; ++h) block_sums[k * H + h] = sum[h];
    fill(sum + h0, h1 - h0, A(0));
  }

  void add_blocks(int64_t h0, int64_t h1) const {
    for (int64_t k = 0; k < blocks.count; ++k) {
      A* sum = G + blocks.row[k] * H;
      for (int64_t h = h0; h < h1; ++h) sum[h] += block_sums[k * H + h];
    }
  }

  // Columns [h0, h1) of the gradients but dembedding, after the last scatter there.
  void finish_columns(int64_t h0, int64_t h1, A* dweight, A* dbias) const {
    add_blocks(h0, h1);
    const A one = 1;
    // Each example counts once at position 0, whatever its token there.
    if (dbias) gemm<A>(1, h1 - h0, index.first[1], {&one, 0, 0}, G + h0, H, dbias + h0, H, false);
    // Transposed first: H fills vectors where E may not.
    for (int64_t t = 0; t < T; ++t) {
      const int64_t r = index.first[t], count = index.first[t + 1] - r;
      gemm<A>(E, h1 - h0, count, {rows + r * E, 1, E}, G + r * H + h0, H,
              dweight_transposed + t * E * H + h0, H, false);
    }
    transpose(K, h1 - h0, dweight_transposed + h0, H, dweight + h0 * K, K);
  }

  // The cost of a column in that.
  int64_t finish_cost() const { return index.rows() * (E + 1) + K; }

  // After all columns of G are there.
  void finish_embedding(A* dembedding, const Parallel& parallel) const {
    const int64_t R = index.rows();
    parallel.run({"dembedding", R, E * H}, [&](int64_t begin, int64_t end) {
      index.for_positions(begin, end, [&](int64_t t, int64_t b, int64_t e) {
        gemm<A>(e - b, E, H, {G + b * H, H, 1}, weight + t * E, K, products + b * E, E, false);
      });
    });
    alone(parallel, "add", [&] {
      fill(dembedding, V * E, A(0));
      for (int64_t r = 0; r < R; ++r) {
        A* sum = dembedding + index.token[r] * E;
        for (int64_t e = 0; e < E; ++e) sum[e] += products[r * E + e];
      }
    });
  }
};

template <class S>
struct EmbedLinearTanhForward {
  using A = Accumulate<S>;
  EmbedLinearTanhPass<S> pass;
  int64_t chunk;  // rows of a 16-bit hidden layer that are computed before they are rounded
  A *weight_transposed, *table, *hidden_scratch;

  EmbedLinearTanhForward(Workspace& workspace, const EmbedLinearTanh<S>& p)
      : pass(workspace, p), chunk(is_wide<S> ? p.N : rows_per_chunk(p.N, p.H)) {
    weight_transposed = workspace.take<A>(pass.K * pass.H);
    table = workspace.take<A>(pass.max_rows() * pass.H);
    hidden_scratch = workspace.take<A>(scratch_size<S>(chunk * pass.H));
  }

  void run(S* hidden, const Parallel& parallel) {
    const int64_t H = pass.H;
    pass.prepare(false, parallel);
    for_columns(parallel, "transpose", H, pass.K,
                [&](int64_t h0, int64_t h1) { pass.transpose_columns(h0, h1, weight_transposed); });
    pass.project(weight_transposed, table, parallel);
    for_chunks(pass.N, chunk, [&](int64_t first, int64_t last) {
      parallel.run({"rows", last - first, H * (pass.T + exp_cost)},
                   [&](int64_t begin, int64_t end) {
                     S* rows = hidden + (first + begin) * H;
                     A* out = writable(rows, hidden_scratch + scratch_size<S>(begin * H));
                     pass.hidden_rows(table, first + begin, first + end, out);
                     narrow(out, (end - begin) * H, rows);
                   });
    });
  }
};

template <class S>
struct EmbedLinearTanhBackward {
  using A = Accumulate<S>;
  EmbedLinearTanhPass<S> pass;
  int64_t chunk;  // rows of 16-bit inputs that are widened at once
  A *hidden_scratch, *dhidden_scratch;
  A *dembedding_scratch, *dweight_scratch, *dbias_scratch;

  EmbedLinearTanhBackward(Workspace& workspace, const EmbedLinearTanh<S>& p)
      : pass(workspace, p), chunk(is_wide<S> ? p.N : smaller(p.N, 32)) {
    const int64_t V = pass.V, E = pass.E, H = pass.H, K = pass.K;
    hidden_scratch = workspace.take<A>(scratch_size<S>(chunk * H));
    dhidden_scratch = workspace.take<A>(scratch_size<S>(chunk * H));
    pass.take_backward_scratch(workspace);
    dembedding_scratch = workspace.take<A>(scratch_size<S>(V * E));
    dweight_scratch = workspace.take<A>(scratch_size<S>(H * K));
    dbias_scratch = workspace.take<A>(scratch_size<S>(H));
  }

  void run(const S* hidden, const S* dhidden, const EmbedLinearTanhGradients<S>& gradients,
           const Parallel& parallel) {
    const int64_t N = pass.N, V = pass.V, E = pass.E, H = pass.H, K = pass.K;
    pass.prepare(true, parallel);
    A* dembedding = writable(gradients.embedding, dembedding_scratch);
    A* dweight = writable(gradients.weight, dweight_scratch);
    A* dbias = gradients.bias ? writable(gradients.bias, dbias_scratch) : nullptr;
    const int64_t cost = N * (pass.T + 1) + pass.finish_cost();
    for_columns(parallel, "columns", H, cost, [&](int64_t h0, int64_t h1) {
      for_chunks(N, chunk, [&](int64_t first, int64_t last) {
        const A* y = widened_columns(hidden, first, last, h0, h1, hidden_scratch);
        const A* dy = widened_columns(dhidden, first, last, h0, h1, dhidden_scratch);
        pass.scatter_columns(y, dy, first, last, h0, h1);
      });
      pass.finish_columns(h0, h1, dweight, dbias);
    });
    pass.finish_embedding(dembedding, parallel);
    narrow(dembedding, V * E, gradients.embedding);
    narrow(dweight, H * K, gradients.weight);
    if (dbias) narrow(dbias, H, gradients.bias);
  }

 private:
  // Rows [first, last) of in (N, H), of which columns [h0, h1) are widened: a task's own.
  const A* widened_columns(const S* in, int64_t first, int64_t last, int64_t h0, int64_t h1,
                           A* scratch) const {
    const int64_t H = pass.H;
    if constexpr (is_wide<S>) {
      return in + first * H;
    } else {
      for (int64_t n = first; n < last; ++n) {
        widened(in + n * H + h0, h1 - h0, scratch + (n - first) * H + h0);
      }
      return scratch;
    }
  }
};
