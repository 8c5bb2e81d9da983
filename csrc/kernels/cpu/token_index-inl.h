// The distinct tokens of a batch, per position: what the projection tables are made of; and how
// sums over the examples of each are cut.

// Position t has the table rows first[t] .. first[t+1]-1, one for each distinct token there, in
// order of first appearance; token[row] says which. slot[n*T + t] is the table row of example n at
// position t.
struct TokenIndex {
  int64_t T;
  int64_t* first;  // (T+1)
  int32_t* token;  // (rows), at most T * min(V, N)
  int32_t* slot;   // (N, T)
  int32_t* seen;   // (V) scratch

  TokenIndex(Workspace& workspace, int64_t N, int64_t T, int64_t V)
      : T(T),
        first(workspace.take<int64_t>(T + 1)),
        token(workspace.take<int32_t>(max_rows(N, T, V))),
        slot(workspace.take<int32_t>(N * T)),
        seen(workspace.take<int32_t>(V)) {}

  static int64_t max_rows(int64_t N, int64_t T, int64_t V) { return T * smaller(V, N); }

  int64_t rows() const { return first[T]; }

  void build(Ids tokens, int64_t N, int64_t V) {
    fill(seen, V, int32_t(-1));
    int32_t row = 0;
    for (int64_t t = 0; t < T; ++t) {
      const int32_t start = row;
      first[t] = row;
      for (int64_t n = 0; n < N; ++n) {
        const int64_t id = tokens[n * T + t];
        // A row number from an earlier position is as good as none: no clearing between positions.
        if (seen[id] < start) {
          seen[id] = row;
          token[row++] = static_cast<int32_t>(id);
        }
        slot[n * T + t] = seen[id];
      }
    }
    first[T] = row;
  }

  // body(t, begin, end) for the table rows of [begin, end), position by position.
  template <class Body>
  void for_positions(int64_t begin, int64_t end, const Body& body) const {
    for (int64_t t = 0; t < T; ++t) {
      const int64_t b = larger(begin, first[t]), e = smaller(end, first[t + 1]);
      if (b < e) body(t, b, e);
    }
  }
};

// How a sum over the examples of each row is cut: into blocks of so many terms, whose sums are then
// added up. So N terms have the rounding errors of terms + N / terms additions, not of N.
struct SumBlocks {
  static constexpr int64_t terms = 512;
  int64_t count = 0;
  int64_t* end = nullptr;      // (count), ascending: a block is complete before example end[k]
  int32_t* row = nullptr;      // (count), the row it belongs to
  int32_t* pending = nullptr;  // (rows) scratch, terms since a row's last complete block

  // A position has N terms in all its rows.
  static int64_t max_count(int64_t N, int64_t T) { return T * (N / terms); }

  void take_scratch(Workspace& workspace, int64_t N, int64_t T, int64_t V) {
    end = workspace.take<int64_t>(max_count(N, T));
    row = workspace.take<int32_t>(max_count(N, T));
    pending = workspace.take<int32_t>(N < terms ? 0 : TokenIndex::max_rows(N, T, V));
  }

  void build(const TokenIndex& index, int64_t N) {
    if (N < terms) return;
    count = 0;
    fill(pending, index.rows(), int32_t(0));
    for (int64_t i = 0; i < N * index.T; ++i) {
      const int32_t r = index.slot[i];
      if (++pending[r] == terms) {
        pending[r] = 0;
        end[count] = i / index.T + 1;
        row[count++] = r;
      }
    }
  }

  // The first block that ends after example n.
  int64_t first_after(int64_t n) const {
    int64_t low = 0, high = count;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (end[middle] > n) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }
};
