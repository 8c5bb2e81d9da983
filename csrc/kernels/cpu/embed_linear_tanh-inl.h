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
  ColumnBlocks columns;
  TokenIndex index;
  A *embedding_scratch, *weight_scratch, *bias_scratch;
  const A *embedding, *weight, *bias;  // as `prepare` leaves them
  A* rows;                             // (index.rows(), E), the distinct embedding rows
  BlockedArray<A> weight_transposed;   // (K, H), in the end that of dweight
  BlockedArray<A> table;               // (index.rows(), H): P_t
  // Members for the backward:
  SumBlocks blocks;
  BlockedArray<A> G;           // (index.rows(), H), sums of dpre over each row's examples
  BlockedArray<A> block_sums;  // (blocks.count, H)
  A* products = nullptr;       // (columns.count or 1, index.rows(), E), G weight_t

  EmbedLinearTanhPass(Workspace& workspace, const EmbedLinearTanh<S>& p)
      : problem(p),
        N(p.N),
        T(p.T),
        V(p.V),
        E(p.E),
        H(p.H),
        K(p.T * p.E),
        columns(H, N),
        index(workspace, N, T, V) {
    embedding_scratch = workspace.take<A>(scratch_size<S>(V * E));
    weight_scratch = workspace.take<A>(scratch_size<S>(H * K));
    bias_scratch = workspace.take<A>(scratch_size<S>(H));
    embedding = readable(problem.embedding, embedding_scratch);
    weight = readable(problem.weight, weight_scratch);
    bias = readable(problem.bias, bias_scratch);
    rows = workspace.take<A>(max_rows() * E);
    weight_transposed = {workspace, columns, K};
    table = {workspace, columns, max_rows()};
  }

  // alternating: rows go forward after others went backward. Otherwise G takes the table's place.
  void take_backward_scratch(Workspace& workspace, bool alternating) {
    blocks.take_scratch(workspace, N, T, V);
    G = alternating ? BlockedArray<A>(workspace, columns, max_rows()) : table;
    block_sums = {workspace, columns, SumBlocks::max_count(N, T)};
    products = workspace.take<A>((products_by_block() ? columns.count : 1) * max_rows() * E);
  }

  int64_t max_rows() const { return TokenIndex::max_rows(N, T, V); }

  void prepare(bool backward, const Parallel& parallel) {
    widened(problem.embedding, V * E, embedding_scratch);
    widened(problem.weight, H * K, weight_scratch);
    widened(problem.bias, H, bias_scratch);
    alone(parallel, "index", Stop::never, [&] {
      index.build(problem.tokens, N, V);
      if (backward) blocks.build(index, N);
      for (int64_t r = 0; r < index.rows(); ++r) {
        const A* from = embedding + index.token[r] * E;
        for (int64_t e = 0; e < E; ++e) rows[r * E + e] = from[e];
      }
    });
  }

  // A column block of the table P_t = embedding weight_tᵀ.
  void project(int64_t block) const {
    const int64_t width = columns.width(block), stride = columns.stride;
    A* transposed = weight_transposed[block];
    transpose(width, K, weight + columns.begin(block) * K, K, transposed, stride);
    for (int64_t t = 0; t < T; ++t) {
      const int64_t r = index.first[t], count = index.first[t + 1] - r;
      gemm<A>(count, width, E, {rows + r * E, E, 1}, transposed + t * E * stride, stride,
              table[block] + r * stride, stride, false);
    }
  }

  // The cost of a column in that.
  int64_t project_cost() const { return K + index.rows() * E; }

  // A column block of the hidden layer of examples [begin, end), into rows out, out + ld, ...
  void hidden_columns(int64_t block, int64_t begin, int64_t end, A* out, int64_t ld) const {
    const int64_t width = columns.width(block), stride = columns.stride;
    const A* const sums = table[block];
    const A* const offset = bias ? bias + columns.begin(block) : nullptr;
    for (int64_t n = begin; n < end; ++n, out += ld) {
      const int32_t* slot = index.slot + n * T;
      for_vectors<A>(0, width, [&](int64_t h, auto lanes) {
        Vec<A> sum = offset ? load(offset + h, lanes) : constant(A(0));
        for (int64_t t = 0; t < T; ++t) sum = sum + load(sums + slot[t] * stride + h, lanes);
        store(out + h, tanh(sum), lanes);
      });
    }
  }

  // A column block of G: adds dpre = dhidden (1 - hidden²) of examples [begin, end) to the rows of
  // their tokens. hidden, dhidden: from the block's first column, rows `ld` apart. Called for all
  // examples in order.
  void scatter_columns(int64_t block, const A* hidden, const A* dhidden, int64_t ld, int64_t begin,
                       int64_t end) const {
    if (begin == 0) fill(G[block], index.rows() * columns.stride, A(0));
    int64_t k = blocks.first_after(begin);
    for (int64_t n = begin; n < end;) {
      const int64_t stop = k < blocks.count ? smaller(end, blocks.end[k]) : end;
      const int64_t offset = (n - begin) * ld;
      add_terms(block, hidden + offset, dhidden + offset, ld, n, stop);
      for (; k < blocks.count && blocks.end[k] == stop; ++k) set_aside(k, block);
      n = stop;
    }
  }

  // Computes a column block's part of the gradients, after the last scatter there: its columns of
  // dweight and dbias, and its products if they are kept by block.
  void finish_columns(int64_t block, A* dweight, A* dbias) const {
    const int64_t h0 = columns.begin(block), width = columns.width(block), stride = columns.stride;
    const A* const sums = G[block];
    add_blocks(block);
    const A one = 1;
    // Each example counts once at position 0, whatever its token there.
    if (dbias) gemm<A>(1, width, index.first[1], {&one, 0, 0}, sums, stride, dbias + h0, H, false);
    // Transposed first: H fills vectors where E may not.
    A* transposed = weight_transposed[block];
    for (int64_t t = 0; t < T; ++t) {
      const int64_t r = index.first[t], count = index.first[t + 1] - r;
      gemm<A>(E, width, count, {rows + r * E, 1, E}, sums + r * stride, stride,
              transposed + t * E * stride, stride, false);
    }
    transpose(K, width, transposed, stride, dweight + h0 * K, K);
    if (products_by_block()) {
      multiply(block, 0, index.rows(), products + block * index.rows() * E, false);
    }
  }

  // The cost of a column in that.
  int64_t finish_cost() const {
    return index.rows() * (products_by_block() ? 2 * E + 1 : E + 1) + K;
  }

  // The products over the columns of each block are kept apart where they are smaller than G.
  // Otherwise G is multiplied by rows, and finish_embedding still reads the weight.
  bool products_by_block() const { return columns.count * E <= H; }

  // After all columns are finished.
  void finish_embedding(A* dembedding, const Parallel& parallel) const {
    const int64_t R = index.rows();
    if (!products_by_block()) {
      parallel.run({"dembedding", R, E * H}, [&](int64_t begin, int64_t end) {
        for (int64_t b = 0; b < columns.count; ++b) multiply(b, begin, end, products, b > 0);
      });
    }
    alone(parallel, "dembedding", Stop::never, [&] {
      fill(dembedding, V * E, A(0));
      for (int64_t block = 0; block < (products_by_block() ? columns.count : 1); ++block) {
        const A* product = products + block * R * E;
        for (int64_t r = 0; r < R; ++r, product += E) {
          A* sum = dembedding + index.token[r] * E;
          for (int64_t e = 0; e < E; ++e) sum[e] += product[e];
        }
      }
    });
  }

 private:
  // Rows [begin, end) of out (index.rows(), E) = G weight_t over a column block, or += if add.
  void multiply(int64_t block, int64_t begin, int64_t end, A* out, bool add) const {
    const int64_t h0 = columns.begin(block), stride = columns.stride;
    index.for_positions(begin, end, [&](int64_t t, int64_t b, int64_t e) {
      gemm<A>(e - b, E, columns.width(block), {G[block] + b * stride, stride, 1},
              weight + h0 * K + t * E, K, out + b * E, E, add);
    });
  }

  // Not inlined: the loop needs the registers for itself.
  __attribute__((noinline)) void add_terms(int64_t block, const A* hidden, const A* dhidden,
                                           int64_t ld, int64_t begin, int64_t end) const {
    A* const sums = G[block];
    const int64_t width = columns.width(block), stride = columns.stride;
    for (int64_t n = begin; n < end; ++n, hidden += ld, dhidden += ld) {
      const int32_t* slot = index.slot + n * T;
      for_vectors<A>(0, width, [&](int64_t h, auto lanes) {
        const Vec<A> y = load(hidden + h, lanes);
        const Vec<A> dpre = load(dhidden + h, lanes) * (constant(A(1)) - y * y);
        for (int64_t t = 0; t < T; ++t) {
          A* sum = sums + slot[t] * stride + h;
          store(sum, load(sum, lanes) + dpre, lanes);
        }
      });
    }
  }

  // The k-th block of terms is complete: its row of G starts again from zero.
  void set_aside(int64_t k, int64_t block) const {
    const int64_t stride = columns.stride;
    A* sum = G[block] + blocks.row[k] * stride;
    for (int64_t h = 0; h < columns.width(block); ++h) {
      block_sums[block][k * stride + h] = sum[h];
      sum[h] = 0;
    }
  }

  void add_blocks(int64_t block) const {
    const int64_t stride = columns.stride;
    for (int64_t k = 0; k < blocks.count; ++k) {
      A* sum = G[block] + blocks.row[k] * stride;
      for (int64_t h = 0; h < columns.width(block); ++h) {
        sum[h] += block_sums[block][k * stride + h];
      }
    }
  }
};

template <class S>
struct EmbedLinearTanhForward {
  using A = Accumulate<S>;
  EmbedLinearTanhPass<S> pass;
  int64_t chunk;  // rows of a 16-bit hidden layer that are computed before they are rounded
  A* hidden_scratch;

  EmbedLinearTanhForward(Workspace& workspace, const EmbedLinearTanh<S>& p)
      : pass(workspace, p), chunk(is_wide<S> ? p.N : rows_per_chunk(p.N, p.H)) {
    hidden_scratch = workspace.take<A>(scratch_size<S>(chunk * pass.H));
  }

  void run(S* hidden, const Parallel& parallel) {
    const int64_t H = pass.H;
    pass.prepare(false, parallel);
    const ColumnBlocks& columns = pass.columns;
    columns.run(parallel, "project", pass.project_cost(),
                [&](int64_t block) { pass.project(block); });
    for_chunks(0, pass.N, chunk, [&](int64_t first, int64_t last) {
      parallel.run(
          {"rows", last - first, H * (pass.T + exp_cost)}, [&](int64_t begin, int64_t end) {
            S* rows = hidden + (first + begin) * H;
            A* out = writable(rows, hidden_scratch + scratch_size<S>(begin * H));
            for (int64_t b = 0; b < columns.count; ++b) {
              pass.hidden_columns(b, first + begin, first + end, out + columns.begin(b), H);
            }
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
    pass.take_backward_scratch(workspace, false);
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
    const ColumnBlocks& columns = pass.columns;
    columns.run(parallel, "columns", cost, [&](int64_t block) {
      const int64_t h0 = columns.begin(block), h1 = columns.begin(block + 1);
      for_chunks(0, N, chunk, [&](int64_t first, int64_t last) {
        const A* y = widened_columns(hidden, first, last, h0, h1, hidden_scratch);
        const A* dy = widened_columns(dhidden, first, last, h0, h1, dhidden_scratch);
        pass.scatter_columns(block, y + h0, dy + h0, H, first, last);
      });
      pass.finish_columns(block, dweight, dbias);
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
