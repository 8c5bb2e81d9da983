// How kernels are cut into phases and chunks. How `Parallel` divides a phase affects speed alone,
// never a result; sizes of chunks depend on the problem alone.

// exp and tanh cost about as much as this many multiply-adds.
constexpr int64_t exp_cost = 12;

// The columns of the hidden layer as they are divided among threads: a few blocks, each of which
// one thread keeps through all phases, in its own core's caches. Results that add up over H are
// kept per block and added in order, so the count depends on sizes alone.
struct ColumnBlocks {
  static constexpr int64_t unit = 16;  // floats in a cache line
  int64_t H, count, stride;            // stride: the largest width, in whole units

  ColumnBlocks(int64_t H, int64_t N) : H(H) {
    // Three units are a panel of the matrix products; more blocks than threads only cost, and few
    // examples are not worth many threads.
    const int64_t units = divide_up(H, unit), most = N < 128 ? 2 : N < 4096 ? 4 : 16;
    count = larger(1, smaller(units / 3, most));
    stride = divide_up(units, count) * unit;
  }

  int64_t begin(int64_t block) const {
    return smaller(H, divide_up(H, unit) * block / count * unit);
  }
  int64_t width(int64_t block) const { return begin(block + 1) - begin(block); }

  // body(block) for each; `cost` is that of one column.
  template <class Body>
  void run(const Parallel& parallel, const char* phase, int64_t cost, const Body& body,
           Stop stop = Stop::anywhere) const {
    parallel.run({phase, count, larger(1, cost * H / count), stop},
                 [body](int64_t begin, int64_t end) {
                   for (int64_t block = begin; block < end; ++block) body(block);
                 });
  }
};

// An array over (rows, H) of which each column block lies by itself: two threads that write side by
// side would take cache lines from each other, the neighbours that the processor prefetches too.
template <class A>
struct BlockedArray {
  A* data = nullptr;
  int64_t block_size = 0;

  BlockedArray() = default;
  BlockedArray(Workspace& workspace, const ColumnBlocks& columns, int64_t rows)
      : data(workspace.take<A>(columns.count * rows * columns.stride)),
        block_size(rows * columns.stride) {}

  // (rows, width), rows columns.stride apart.
  A* operator[](int64_t block) const { return data + block * block_size; }
};

// A matrix (rows, H) of the caller: dense, or each column block's columns by themselves.
template <class A>
struct ColumnView {
  ColumnBlocks columns;
  A* data;
  int64_t rows;
  bool in_blocks;

  // The address of a block's first column; its rows are `ld` apart.
  A* operator[](int64_t block) const { return data + offset(block); }
  int64_t offset(int64_t block) const {
    return in_blocks ? block * rows * columns.stride : columns.begin(block);
  }
  int64_t ld() const { return in_blocks ? columns.stride : columns.H; }
  int64_t size() const { return rows * (in_blocks ? columns.count * columns.stride : columns.H); }
};

// Work of one thread while the others wait.
template <class Body>
inline void alone(const Parallel& parallel, const char* phase, Stop stop, const Body& body) {
  parallel.run({phase, 1, 0, stop}, [&](int64_t, int64_t) { body(); });
}

// Rows of `width` elements that make a chunk: few enough to stay in the caches between one phase
// and the next, enough to make a phase worth its threads.
inline int64_t rows_per_chunk(int64_t N, int64_t width) {
  constexpr int64_t elements = 262144, fewest = 256, unit = 32;
  return smaller(N, larger(fewest, elements / larger(1, width) / unit * unit));
}

// body(b, e) for one chunk of [begin, end) after the other.
template <class Body>
inline void for_chunks(int64_t begin, int64_t end, int64_t chunk, const Body& body) {
  for (int64_t b = begin; b < end; b += chunk) body(b, smaller(b + chunk, end));
}
