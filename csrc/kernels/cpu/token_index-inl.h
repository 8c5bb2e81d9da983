// The distinct tokens of a batch, per position: what the projection tables are made of.

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
