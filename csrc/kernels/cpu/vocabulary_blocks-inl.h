// How the work of a large output layer is divided: its vocabulary among threads, the rows of a
// chunk among vectors.

// The vocabulary in blocks of whole tiles. What adds up over V is kept per block and added in
// order, so the count depends on V alone.
struct VocabularyBlocks {
  static constexpr int64_t tile = 128;  // rows of the weight whose logits fit the first cache
  static constexpr int64_t most = 16;
  int64_t V, tiles, count;

  explicit VocabularyBlocks(int64_t V)
      : V(V), tiles(divide_up(V, tile)), count(larger(1, smaller(tiles, most))) {}

  int64_t begin(int64_t block) const { return smaller(V, tiles * block / count * tile); }

  // body(begin, end) for each tile of a block.
  template <class Body>
  void for_tiles(int64_t block, const Body& body) const {
    for_chunks(begin(block), begin(block + 1), tile, body);
  }

  // body(block) for each; `cost` is that of one row of the weight.
  template <class Body>
  void run(const Parallel& parallel, const char* phase, int64_t cost, Stop stop,
           const Body& body) const {
    parallel.run({phase, count, larger(1, cost * V / count), stop},
                 [body](int64_t begin, int64_t end) {
                   for (int64_t block = begin; block < end; ++block) body(block);
                 });
  }
};

// The rows of a chunk in panels: as many as the columns of a tile of the matrix products.
struct Panels {
  static constexpr int64_t unit = 16, widest = 3 * unit;
  int64_t rows, count;

  explicit Panels(int64_t rows) : rows(rows), count(divide_up(rows, widest)) {}

  // In whole units, as evenly as they go.
  int64_t begin(int64_t panel) const {
    return smaller(rows, divide_up(rows, unit) * panel / count * unit);
  }

  // body(begin, end) for each.
  template <class Body>
  void for_each(const Body& body) const {
    for (int64_t p = 0; p < count; ++p) body(begin(p), begin(p + 1));
  }

  template <class Body>
  void run(const Parallel& parallel, const char* phase, int64_t cost, Stop stop,
           const Body& body) const {
    const Panels panels = *this;
    parallel.run({phase, count, cost * rows / larger(1, count), stop},
                 [panels, body](int64_t begin, int64_t end) {
                   for (int64_t p = begin; p < end; ++p) body(panels.begin(p), panels.begin(p + 1));
                 });
  }
};

// Rows that make a chunk: with gradients all their logits are held at once, which are to stay in
// the last cache together with the weight.
inline int64_t vocabulary_chunk(int64_t N, int64_t V, bool gradients) {
  constexpr int64_t elements = int64_t(1) << 22, fewest = Panels::widest, most = 1024;
  const int64_t fits = elements / larger(1, V) / fewest * fewest;
  const int64_t limit = gradients ? larger(fewest, smaller(most, fits)) : most;
  const int64_t even = divide_up(N, larger(1, divide_up(N, limit)));
  return larger(1, smaller(N, divide_up(even, Panels::unit) * Panels::unit));
}
