// Sums over the examples of each token, in an order that depends on the ids alone: what takes the
// place of a scatter-add with atomics, whose order changes from run to run.
#pragma once

#include "kernels/cuda/product-inl.h"

namespace pymlp {
namespace cuda {

// --- few tokens: a table in shared memory --------------------------------------------------------

// table[t * V + v] (H) = Σ dpre over the examples whose token at position t is v, and in the last
// row Σ dpre over all; dpre = dhidden (1 - hidden²). The sum of no rows is -0, to which any number
// can be added without a trace: that is how `occurs` knows.
//
// A block is one warp: it owns 32 columns and a part of the examples, whose rows it adds in order
// to its own table in shared memory. The parts' tables are then added up in order.
template <class S>
struct SumByToken {
  using A = Accumulate<S>;
  static constexpr int threads = warp_size, columns = warp_size;
  static constexpr int together = 8;  // rows on their way at once

  int64_t N, T, V, H, rows_per_part, column_tiles;
  Ids tokens;
  const S *hidden, *dhidden;  // (N, H)
  A* tables;                  // (parts, T * V + 1, H)

  static constexpr int64_t most_shared_bytes = 48 * 1024;
  static int64_t shared_bytes(int64_t T, int64_t V) {
    return (T * V + 1) * columns * static_cast<int64_t>(sizeof(A));
  }
  static bool fits(int64_t T, int64_t V) {
    return V < most_shared_bytes && T < most_shared_bytes &&
           shared_bytes(T, V) <= most_shared_bytes;
  }

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int table_rows = static_cast<int>(T * V) + 1;
    const Shared<A> sums = t.shared<A>(table_rows * columns);
    for (int r = 0; r < table_rows; ++r) sums[r * columns + t.lane] = A(-0.0);
    const int64_t part = t.block / column_tiles, h = t.block % column_tiles * columns + t.lane;
    const bool inside = h < H;
    const int64_t begin = part * rows_per_part, end = smaller(N, begin + rows_per_part);
    for (int64_t n = begin; n < end; n += together) {
      A dpre[together];
#pragma unroll
      for (int j = 0; j < together; ++j) {
        const bool present = inside && n + j < end;
        const A y = present ? widen(hidden[(n + j) * H + h]) : A(0);
        // -0 would look as if nothing were added.
        dpre[j] = present ? widen(dhidden[(n + j) * H + h]) * (1 - y * y) + A(0) : A(0);
      }
      const int64_t ids_end = smaller(end, n + together) * T;
      int64_t mine = 0, i = n * T;  // mine: one of the next 32 ids, which the lanes read together
#pragma unroll
      for (int j = 0; j < together; ++j) {
        if (n + j >= end) break;
        for (int64_t position = 0; position < T; ++position, ++i) {
          const int from = static_cast<int>((i - n * T) % warp_size);
          if (from == 0) mine = i + t.lane < ids_end ? id_at(tokens, i + t.lane) : 0;
          const int64_t id = t.shuffle(mine, from);
          if (id >= 0 && id < V) {
            sums[static_cast<int>(position * V + id) * columns + t.lane] += dpre[j];
          }
        }
        sums[(table_rows - 1) * columns + t.lane] += dpre[j];
      }
    }
    if (!inside) return;
    for (int r = 0; r < table_rows; ++r) {
      tables[(part * table_rows + r) * H + h] = sums[r * columns + t.lane];
    }
  }
};

// Whether anything was added to a row (H) of the table.
template <class A>
PYMLP_DEVICE bool occurs(const A* row, int64_t H) {
  for (int64_t h = 0; h < H; ++h) {
    if (row[h] != 0 || 1 / row[h] > 0) return true;  // other than -0
  }
  return false;
}

// tables[0] = Σ tables[part], in order.
template <class A>
struct AddTables {
  static constexpr int threads = 128;
  int64_t size, parts;
  A* tables;  // (parts, size)

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t i = t.block * threads + t.thread;
    if (i >= size) return;
    A sum = A(-0.0);
#pragma unroll 16  // so many are on their way at once
    for (int64_t part = 0; part < parts; ++part) sum += tables[part * size + i];
    tables[i] = sum;
  }
};

template <class S>
struct TokenTables {
  using A = Accumulate<S>;
  int64_t N, T, V, H, rows_per_part, parts;
  A* tables;

  TokenTables(Workspace& workspace, int64_t N, int64_t T, int64_t V, int64_t H)
      : N(N), T(T), V(V), H(H) {
    // Short parts keep more of the machine busy, long ones write fewer tables. No sum has more than
    // 1,024 terms before it is added to others.
    rows_per_part = larger(64, smaller(1024, divide_up(divide_up(N, 128), 64) * 64));
    parts = larger(1, divide_up(N, rows_per_part));
    tables = workspace.take<A>(parts * table_size());
  }

  int64_t table_size() const { return (T * V + 1) * H; }

  // tables[0]: the sums.
  void run(const Ids& tokens, const S* hidden, const S* dhidden, const Queue& queue) const {
    const int64_t column_tiles = divide_up(H, SumByToken<S>::columns);
    launch(queue, {column_tiles * parts},
           SumByToken<S>{N, T, V, H, rows_per_part, column_tiles, tokens, hidden, dhidden, tables},
           SumByToken<S>::shared_bytes(T, V));
    if (parts == 1) return;
    launch(queue, {divide_up(table_size(), AddTables<A>::threads)},
           AddTables<A>{table_size(), parts, tables});
  }
};

// --- many tokens: a block a token ----------------------------------------------------------------

// The places of a token's first and last occurrence among the `count` ids.
struct Occurrences {
  int64_t first, last;
};

struct ClearOccurrences {
  static constexpr int threads = 256;
  int64_t count, V;
  Occurrences* occurrences;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t v = t.block * threads + t.thread;
    if (v < V) occurrences[v] = {count, -1};
  }
};

struct FindOccurrences {
  static constexpr int threads = 256;
  int64_t count, V;
  Ids tokens;
  Occurrences* occurrences;

  PYMLP_DEVICE void operator()(Thread& t) const {
    const int64_t i = t.block * threads + t.thread;
    if (i >= count) return;
    const int64_t id = id_at(tokens, i);
    if (id < 0 || id >= V) return;
    t.atomic_min(&occurrences[id].first, i);
    t.atomic_max(&occurrences[id].last, i);
  }
};

// out[v] (E) = factor * Σ x[i] over all i whose id is v. Between the token's first and last
// occurrence each warp of the block has its own stretch of ids: it looks at 32 at a time, and adds
// the rows of those that are v in order. The warps' sums are added in order. In float64, since a
// frequent token has many terms.
template <class X, class S>
struct SumRowsByToken {
  using A = Accumulate<S>;
  static constexpr int threads = 256, warps = threads / warp_size;
  static constexpr int per_lane = 4, columns = per_lane * warp_size;
  static constexpr int together = 4;  // rows on their way at once
  static constexpr int64_t shared_bytes = warps * columns * 8;

  int64_t E;
  Ids tokens;
  const Occurrences* occurrences;
  const X* x;       // (ids, E)
  const A* factor;  // or null
  S* out;           // (V, E)

  PYMLP_DEVICE void operator()(Thread& t) const {
    const Shared<double> sums = t.shared<double>(warps * columns);
    const Occurrences range = occurrences[t.block];
    const int64_t e0 = t.block_y * columns;
    const int64_t length = larger(0, range.last - range.first + 1);
    const int64_t stretch = divide_up(divide_up(length, warps), warp_size) * warp_size;
    const int64_t begin = range.first + t.warp * stretch;
    const int64_t end = smaller(range.last + 1, begin + stretch);
    double sum[per_lane] = {};
    for (int64_t i = begin; i < end; i += warp_size) {
      const int64_t mine = i + t.lane;
      unsigned found = t.ballot(mine < end && id_at(tokens, mine) == t.block);
      while (found != 0) add_rows(t, i, e0, found, sum);
    }
#pragma unroll
    for (int j = 0; j < per_lane; ++j) {
      sums[t.warp * columns + j * warp_size + t.lane] = sum[j];
    }
    t.barrier();  // all warps' sums are there
    if (t.thread >= columns || e0 + t.thread >= E) return;
    double total = 0;
    for (int warp = 0; warp < warps; ++warp) total += double(sums[warp * columns + t.thread]);
    narrow(scaled(A(total), factor), out[t.block * E + e0 + t.thread]);
  }

 private:
  // The next few rows of those found.
  PYMLP_DEVICE void add_rows(const Thread& t, int64_t i, int64_t e0, unsigned& found,
                             double (&sum)[per_lane]) const {
    A row[together][per_lane];
#pragma unroll
    for (int k = 0; k < together; ++k) {
      const bool present = found != 0;
      const int64_t from = i + (present ? lowest_bit(found) : 0);
      if (present) found &= found - 1;
#pragma unroll
      for (int j = 0; j < per_lane; ++j) {
        const int64_t e = e0 + j * warp_size + t.lane;
        row[k][j] = present && e < E ? widen(x[from * E + e]) : A(0);
      }
    }
#pragma unroll
    for (int k = 0; k < together; ++k) {
#pragma unroll
      for (int j = 0; j < per_lane; ++j) sum[j] += row[k][j];
    }
  }
};

// Tokens beyond V are left out.
struct TokenRows {
  int64_t count, V;
  Occurrences* occurrences;

  TokenRows() = default;
  TokenRows(Workspace& workspace, int64_t count, int64_t V)
      : count(count), V(V), occurrences(workspace.take<Occurrences>(V)) {}

  template <class X, class S>
  void run(const Ids& tokens, const X* x, int64_t E, const Accumulate<S>* factor, S* out,
           const Queue& queue) const {
    launch(queue, {divide_up(V, ClearOccurrences::threads)},
           ClearOccurrences{count, V, occurrences});
    launch(queue, {divide_up(count, FindOccurrences::threads)},
           FindOccurrences{count, V, tokens, occurrences});
    using Sum = SumRowsByToken<X, S>;
    launch(queue, {V, divide_up(E, Sum::columns)}, Sum{E, tokens, occurrences, x, factor, out},
           Sum::shared_bytes);
  }
};

}  // namespace cuda
}  // namespace pymlp
