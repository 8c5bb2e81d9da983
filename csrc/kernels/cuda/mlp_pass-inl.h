// The whole model, its loss and its gradients in one pass over the examples: neither the hidden
// layer nor the logits are ever in device memory. For models of few tokens in float32, whose sums
// fit into the shared memory of a block.
//
// A block takes 32 examples at a time:
//
//   gather    hidden = tanh(Σ_t table[t, token]), of the table P_t = embedding weight_tᵀ
//   logits    hidden · output weightᵀ                        by tensor cores, in slices of H
//   softmax   losses, and dlogits, split, where the slices were
//   output    doutput_weight += dlogitsᵀ · hidden            by tensor cores
//   dpre      (dlogits · output weight) (1 - hidden²)        by tensor cores, where hidden was
//   tokens    the table of sums of dpre by token: += dpre
//
// and keeps both sums from its first examples to its last. Those of the blocks are then added up in
// order, and the hidden layer's gradients are made from the table, which holds the hidden bias too.
// The hidden layer has a last column of ones, by which the output bias gets its gradient; the bias
// itself is added after the product, where an infinite one stays what it is.
#pragma once

#include "kernels/cuda/embed_linear_tanh-inl.h"
#include "kernels/cuda/table_gradients-inl.h"
#include "kernels/cuda/tensor_cores-inl.h"
#include "kernels/cuda/totals-inl.h"

namespace pymlp {
namespace cuda {

// Where the arrays of a block lie. Rows are as long as factors of tensor cores want them; what
// fills them up is zero, so that products need no limits.
//
// Both tables, P in device memory and the sums in shared memory, have rows of the same length in
// the same order: T * V for the tokens at each position, then one that is the sum over all
// examples (P has nothing there), then one for tokens that are nobody's: it is NaN in P, and nobody
// reads its sums.
struct PassLayout {
  static constexpr int rows = 32;   // examples at a time
  static constexpr int slices = 2;  // of H in the logits' sums; then the parts of dlogits
  static constexpr int warps = 16, threads = warps * warp_size, lanes = threads / rows;

  int T, V, H;
  int positions;  // T and one for the sum over all examples, in whole fours
  int padded_V, row_v, row_h, row_table;

  PYMLP_HOST_DEVICE PassLayout(int64_t T, int64_t V, int64_t H)
      : T(int(T)),
        V(int(V)),
        H(int(H)),
        positions(int(divide_up(T + 1, 4) * 4)),
        padded_V(int(divide_up(V, 32) * 32)),
        row_v(padded_V + 8),
        row_h(int(divide_up(H + 1 + 8, 16) * 16 - 8)),
        row_table(int(divide_up(H, 4) * 4)) {}

  PYMLP_HOST_DEVICE int all_examples() const { return T * V; }
  PYMLP_HOST_DEVICE int nobody() const { return T * V + 1; }
  PYMLP_HOST_DEVICE int table() const { return (T * V + 2) * row_table; }
  PYMLP_HOST_DEVICE int output() const { return padded_V * row_h; }
  PYMLP_HOST_DEVICE int hidden() const { return rows * row_h; }
  PYMLP_HOST_DEVICE int slice() const { return rows * row_v; }
  PYMLP_HOST_DEVICE int columns() const { return int(divide_up(H + 1, 8) * 8); }  // of hidden
  // What a block leaves behind: its table (T * V + 1, H), then doutput_weight (V, H + 1).
  PYMLP_HOST_DEVICE int64_t table_sums() const { return (int64_t(T) * V + 1) * H; }
  PYMLP_HOST_DEVICE int64_t sums() const { return table_sums() + int64_t(V) * (H + 1); }

  // split_weight: whether the output weight lies split, which takes less time and more room.
  static int64_t shared_bytes(int64_t T, int64_t V, int64_t H, bool split_weight) {
    constexpr int64_t most = int64_t(1) << 20;  // of any of them; beyond any device
    if (T > most || V > most || H > most || (T * V + 2) * (H + 4) > most ||
        (V + 32) * (H + 24) > most) {
      return most * 8;
    }
    const PassLayout l(T, V, H);
    const auto array = [](int64_t count, int64_t size) { return divide_up(count * size, 16) * 16; };
    return array(l.table(), 4) + array((split_weight ? 3 : 2) * l.output(), 4) +
           array(l.padded_V, 4) + array(l.hidden(), 4) + array(slices * l.slice(), 4) +
           2 * array(rows * l.positions, 4) + 2 * array(rows, 8) + totals_shared_bytes(threads);
  }
};

// table: P, with the hidden bias in its first position. What fills up its rows is zero.
struct PassTable : TableProduct<float> {
  PassLayout layout;

  PassTable(const EmbedLinearTanh<float>& p, const PassLayout& layout, float* table)
      : TableProduct<float>(p, table), layout(layout) {
    N = layout.row_table;
  }

  PYMLP_DEVICE float right(int64_t t, int64_t e, int64_t h) const {
    return h < p.H ? TableProduct<float>::right(t, e, h) : 0.0f;
  }
  PYMLP_DEVICE void store(int64_t t, int64_t v, int64_t h, float sum) const {
    const float bias = t == 0 && h < p.H && p.bias ? p.bias[h] : 0.0f;
    table[(t * p.V + v) * N + h] = sum + bias;
    if (t == 0 && v == 0) table[layout.nobody() * N + h] = not_a_number<float>();
  }
};

// What one thread of a block does.
template <bool split_weight>
class PassBlock {
 public:
  static constexpr int threads = PassLayout::threads;
  static constexpr int rows = PassLayout::rows, lanes = PassLayout::lanes;

  struct Arguments {
    EmbedLinearTanh<float> p;
    const float *table, *output_weight, *output_bias;  // PassTable's; the last may be null
    SoftmaxLoss<float> rule;
    Totals* totals;  // (blocks)
    float* sums;     // (blocks, PassLayout::sums())
  };

  PYMLP_DEVICE PassBlock(Thread& thread, const Arguments& arguments)
      : t(thread),
        k(arguments),
        l(k.p.T, k.p.V, k.p.H),
        by_token(t.shared<float>(l.table())),
        weights(t.shared<float>((split_weight ? 3 : 2) * l.output())),
        bias(t.shared<float>(l.padded_V)),
        hidden(t.shared<float>(l.hidden())),
        logits(t.shared<float>(PassLayout::slices * l.slice())),
        even_tokens(t.shared<int32_t>(rows * l.positions)),
        odd_tokens(t.shared<int32_t>(rows * l.positions)),
        even_targets(t.shared<int64_t>(rows)),
        odd_targets(t.shared<int64_t>(rows)) {}

  PYMLP_DEVICE void run() const {
    begin();
    Totals mine{0, 0};
    const int64_t step = t.blocks * rows;
    bool odd = false;
    for (int64_t n = t.block * rows; n < k.p.N; n += step, odd = !odd) {
      const Shared<int32_t> tokens = odd ? odd_tokens : even_tokens;
      const int present = int(smaller(rows, k.p.N - n));
      gather(tokens, present);
      t.barrier();  // hidden
      make_logits();
      t.barrier();  // slices of the logits
      softmax(odd ? odd_targets : even_targets, present, mine);
      t.barrier();  // dlogits
      add_output();
      t.barrier();  // the hidden layer has been read
      make_dpre();
      t.barrier();  // dpre
      add_by_token(tokens);
      fetch(n + step, odd ? even_tokens : odd_tokens, odd ? even_targets : odd_targets);
      t.barrier();  // dpre has been read; the next ids
    }
    end(mine);
  }

 private:
  PYMLP_DEVICE void begin() const {
    for (int i = t.thread; i < l.table(); i += threads) by_token[i] = -0.0f;
    for (int i = t.thread; i < l.output(); i += threads) {
      const int v = i / l.row_h, h = i % l.row_h;
      const float x = v < l.V && h < l.H ? k.output_weight[int64_t(v) * l.H + h] : 0.0f;
      if constexpr (split_weight) {
        const SplitNumber parts(x);
        weights[i] = parts.big;
        weights[2 * l.output() + i] = parts.small;
      } else {
        weights[i] = x;
      }
      weights[l.output() + i] = 0.0f;
    }
    for (int v = t.thread; v < l.padded_V; v += threads) {
      bias[v] = v < l.V && k.output_bias ? k.output_bias[v] : 0.0f;
    }
    for (int i = t.thread; i < l.hidden(); i += threads) {
      hidden[i] = i % l.row_h == l.H ? 1.0f : 0.0f;
    }
    fetch(t.block * rows, even_tokens, even_targets);
    t.barrier();  // all that is there before the first examples
  }

  // The targets of the examples from n on, and where in both tables their tokens' rows begin.
  PYMLP_DEVICE void fetch(int64_t n, const Shared<int32_t>& tokens,
                          const Shared<int64_t>& targets) const {
    const int count = int(smaller(rows, k.p.N - n));
    // By the last threads first: the first ones have the columns of the table.
    for (int i = threads - 1 - t.thread; i < rows * l.positions; i += threads) {
      const int r = i / l.positions, position = i % l.positions;
      int row = l.nobody();
      if (r < count && position < l.T) {
        const int64_t id = id_at(k.p.tokens, (n + r) * l.T + position);
        if (id >= 0 && id < l.V) row = position * l.V + int(id);
      } else if (r < count && position == l.T) {
        row = l.all_examples();
      }
      tokens[i] = row * l.row_table;
    }
    for (int r = t.thread; r < count; r += threads) targets[r] = id_at(k.rule.target, n + r);
  }

  // A thread has four columns of some rows. Rows without an example are zero.
  PYMLP_DEVICE void gather(const Shared<int32_t>& tokens, int present) const {
    const int fours = l.row_table / 4, width = fours < threads ? fours : threads;
    const int groups = threads / width, group = t.thread / width;
    if (group == groups) return;  // too few are left for another group
    for (int four = t.thread % width; four < fours; four += width) {
      for (int r = group; r < rows; r += groups) {
        Vector<float, 4> x{};
        if (r < present) x = hidden_units(tokens, r, 4 * four);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int h = 4 * four + i;
          if (h >= l.H) x.element[i] = h == l.H ? 1.0f : 0.0f;
        }
        hidden.store(r * l.row_h + 4 * four, x);
      }
    }
  }

  PYMLP_DEVICE Vector<float, 4> hidden_units(const Shared<int32_t>& tokens, int r, int h) const {
    Vector<float, 4> x{};
    for (int position = 0; position < l.T; ++position) {
      const int row = tokens[r * l.positions + position];
      const auto y = *reinterpret_cast<const Vector<float, 4>*>(k.table + row + h);
#pragma unroll
      for (int i = 0; i < 4; ++i) x.element[i] += y.element[i];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) x.element[i] = tanh_of(x.element[i]);
    return x;
  }

  using Rows = TensorFactor<false>;
  using Columns = TensorFactor<true>;

  template <bool by_columns>
  PYMLP_DEVICE auto weight() const {
    if constexpr (split_weight) {
      return SplitFactor<by_columns>{weights, l.row_h, 2 * l.output()};
    } else {
      return TensorFactor<by_columns>{weights, l.row_h};
    }
  }
  template <bool by_columns>
  PYMLP_DEVICE SplitFactor<by_columns> dlogits() const {
    return {logits, l.row_v, l.slice()};
  }

  PYMLP_DEVICE void make_logits() const {
    using Tile = TensorTile<1, 2>;
    constexpr int slices = PassLayout::slices;
    const int across = l.padded_V / Tile::columns, steps = l.columns() / tensor_depth;
    for (int i = t.warp; i < across * slices * (rows / Tile::rows); i += t.warps) {
      const int slice = i / across % slices;
      Tile tile(i / across / slices * Tile::rows, i % across * Tile::columns);
      tile.add(t, Rows{hidden, l.row_h}, weight<false>(), l.padded_V,
               steps * slice / slices * tensor_depth, steps * (slice + 1) / slices * tensor_depth);
      tile.for_elements(t, l.padded_V, [&](int r, int v, float sum) {
        logits[slice * l.slice() + r * l.row_v + v] = sum;
      });
    }
  }

  // 16 lanes a row, each with the same columns from beginning to end.
  PYMLP_DEVICE void softmax(const Shared<int64_t>& targets, int present, Totals& mine) const {
    const int r = t.thread / lanes, row = r * l.row_v, first = t.thread % lanes;
    const int64_t id = r < present ? int64_t(targets[r]) : k.rule.ignore_index;
    const bool in_range = k.rule.in_range(id);
    float largest = -infinity<float>(), at_target = 0;
    for (int v = first; v < l.V; v += lanes) {
      float x = logits[row + v];
#pragma unroll
      for (int s = 1; s < PassLayout::slices; ++s) x += float(logits[s * l.slice() + row + v]);
      x += float(bias[v]);
      logits[row + v] = x;
      largest = x > largest ? x : largest;
      if (v == id) at_target = x;
    }
    largest = lanes_max<lanes>(t, largest);
    at_target = t.shuffle(at_target, t.lane / lanes * lanes + (in_range ? int(id) % lanes : 0));
    float sum = 0, below = 0;  // below: Σ (largest - x)
    for (int v = first; v < l.V; v += lanes) {
      const float x = logits[row + v];
      const float e = x == -infinity<float>() ? 0.0f : exp_of(x - largest);  // NaN if x is
      logits[row + v] = e;
      sum += e;
      if (k.rule.smoothing > 0) below += largest - x;
    }
    sum = lanes_sum<lanes>(t, sum);
    if (k.rule.smoothing > 0) below = lanes_sum<lanes>(t, below);
    const bool undefined = largest == -infinity<float>();
    const RowSoftmax<float> s{largest, undefined ? not_a_number<float>() : sum};
    const auto g = k.rule.row_gradient(s, id, 1, float(l.V));
    const float of_ignored = r < present ? g.factor : 0.0f;
    for (int v = first; v < l.V; v += lanes) {
      float d = id == k.rule.ignore_index ? of_ignored : g.factor * logits[row + v] - g.spread;
      if (v == id) d -= g.hit;
      const SplitNumber parts(d);
      logits[row + v] = parts.big;
      logits[l.slice() + row + v] = parts.small;
    }
    if (first != 0) return;
    mine.loss += k.rule.row_loss(s, id, at_target, float(l.V) * log_of(s.sum) + below);
    mine.weight += k.rule.weight_of_target(id);
  }

  PYMLP_DEVICE void add_output() const {
    for_tiles(l.padded_V, [&](auto& tile) {
      tile.add(t, dlogits<true>(), Columns{hidden, l.row_h}, l.columns(), 0, rows);
      tile.for_elements(t, l.columns(), [&](int v, int h, float sum) {
        weights[l.output() + v * l.row_h + h] += sum;
      });
    });
  }

  PYMLP_DEVICE void make_dpre() const {
    for_tiles(rows, [&](auto& tile) {
      tile.add(t, dlogits<false>(), weight<true>(), l.columns(), 0, l.padded_V);
      tile.for_elements(t, l.columns(), [&](int r, int h, float sum) {
        if (h >= l.H) return;
        const int i = r * l.row_h + h;
        const float y = hidden[i];
        hidden[i] = sum * (1 - y * y) + 0.0f;  // -0 would look as if nothing were added
      });
    });
  }

  // body(tile) for the tiles of a product of M rows, whole tiles, and the columns of the hidden
  // layer.
  template <class Body>
  PYMLP_DEVICE void for_tiles(int M, const Body& body) const {
    using Tile = TensorTile<2, 4>;
    const int across = (l.columns() + Tile::columns - 1) / Tile::columns;
    for (int i = t.warp; i < M / Tile::rows * across; i += t.warps) {
      Tile tile(i / across * Tile::rows, i % across * Tile::columns);
      body(tile);
    }
  }

  // A thread a column, so that each sum is made by one, example after example. Rows of a table that
  // belong to different positions are different ones: they are on their way together.
  PYMLP_DEVICE void add_by_token(const Shared<int32_t>& tokens) const {
    constexpr int together = 4;  // examples whose dpre and tokens are read at once
    for (int h = t.thread; h < l.H; h += threads) {
      for (int r = 0; r < rows; r += together) {
        float dpre[together];
#pragma unroll
        for (int i = 0; i < together; ++i) dpre[i] = hidden[(r + i) * l.row_h + h];
        for (int position = 0; position < l.positions; position += 4) {
          Vector<int32_t, 4> begins[together];
#pragma unroll
          for (int i = 0; i < together; ++i) {
            begins[i] = tokens.template vector<4>((r + i) * l.positions + position);
          }
#pragma unroll
          for (int i = 0; i < together; ++i) add_to_rows(begins[i], h, dpre[i]);
        }
      }
    }
  }

  PYMLP_DEVICE void add_to_rows(const Vector<int32_t, 4>& begins, int h, float dpre) const {
    float sum[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[j] = by_token[begins.element[j] + h];
#pragma unroll
    for (int j = 0; j < 4; ++j) by_token[begins.element[j] + h] = sum[j] + dpre;
  }

  PYMLP_DEVICE void end(const Totals& mine) const {
    const Totals all = block_totals(t, mine);
    if (t.thread == 0) k.totals[t.block] = all;
    float* const out = k.sums + t.block * l.sums();
    for (int row = t.warp; row <= l.all_examples(); row += t.warps) {
      for (int h = t.lane; h < l.H; h += warp_size) {
        out[row * l.H + h] = by_token[row * l.row_table + h];
      }
    }
    for (int v = t.warp; v < l.V; v += t.warps) {
      for (int h = t.lane; h <= l.H; h += warp_size) {
        out[l.table_sums() + v * (l.H + 1) + h] = weights[l.output() + v * l.row_h + h];
      }
    }
  }

  Thread& t;
  const Arguments& k;
  const PassLayout l;
  const Shared<float> by_token;
  const Shared<float> weights;  // the output weight; its gradient; if split, its small parts
  const Shared<float> bias, hidden, logits;
  const Shared<int32_t> even_tokens, odd_tokens;  // of a block's even and odd steps
  const Shared<int64_t> even_targets, odd_targets;
};

template <bool split_weight>
struct MlpPassKernel {
  static constexpr int threads = PassLayout::threads;
  typename PassBlock<split_weight>::Arguments arguments;

  PYMLP_DEVICE void operator()(Thread& t) const { PassBlock<split_weight>(t, arguments).run(); }
};

// What the blocks left behind, added up in order: the table stays where the first block's was, the
// output layer's gradients go where they are wanted.
struct AddPasses {
  static constexpr int threads = 128;
  static constexpr int64_t shared_bytes = totals_shared_bytes(threads);

  PassLayout layout;
  int64_t blocks;
  const Totals* totals;
  float* sums;
  Reduction reduction;
  const float* grad_output;  // (1), or null: 1
  LinearCrossEntropyGradients<float> d;
  float *loss, *common_scale, *factor;  // (1) each; factor: see MlpCrossEntropyGradients, or null

  PYMLP_DEVICE void operator()(Thread& t) const {
    const Totals all = totals_of(t, totals, blocks);
    const float scale = scale_of(all);
    if (t.block == 0 && t.thread == 0) {
      *loss = reduced_loss<float>(reduction, true, all);
      *common_scale = scale;
      if (factor) *factor = scale;
    }
    const int64_t i = t.block * threads + t.thread;
    if (i < layout.sums()) store(i, factor ? 1.0f : scale);
  }

 private:
  // Of no token that counts the gradients are zero, and the mean's factor infinite.
  PYMLP_DEVICE float scale_of(const Totals& all) const {
    const double normalizer = normalizer_of(reduction, all.weight);
    return normalizer == 0 ? 1.0f : common_factor(grad_output, normalizer);
  }

  PYMLP_DEVICE void store(int64_t i, float scale) const {
    float sum = -0.0f;
#pragma unroll 16
    for (int64_t block = 0; block < blocks; ++block) sum += sums[block * layout.sums() + i];
    if (i < layout.table_sums()) {
      sums[i] = sum;
      return;
    }
    const int64_t v = (i - layout.table_sums()) / (layout.H + 1);
    const int64_t h = (i - layout.table_sums()) % (layout.H + 1);
    if (h < layout.H) {
      d.weight[v * layout.H + h] = sum * scale;
    } else if (d.bias) {
      d.bias[v] = sum * scale;
    }
  }
};

struct MlpPass {
  const MlpCrossEntropy<float>& p;
  PassLayout layout;
  int64_t blocks;
  float *table, *sums, *common_scale;
  Totals* totals;

  // Whether it is the way for a problem: gradients are wanted of a loss that is one number.
  static bool takes(const MlpCrossEntropy<float>& p) {
    const EmbedLinearTanh<float>& z = p.hidden;
    const CrossEntropyOptions<float>& options = p.output.options;
    return z.N > 0 && z.T > 0 && z.V > 0 && z.H > 0 && p.output.V == z.V &&
           options.reduction != Reduction::none && !options.class_weight && options.softcap == 0 &&
           shared_bytes(p, false) <= most_shared_bytes();
  }

  // As many as an H100 runs at once; more, where a block would have more than 1,024 examples, and
  // sums of so many terms.
  static int64_t blocks_for(int64_t N) {
    constexpr int64_t most_examples = 1024;
    return smaller(divide_up(N, PassLayout::rows),
                   multiprocessors * divide_up(N, multiprocessors * most_examples));
  }

  MlpPass(Workspace& workspace, const MlpCrossEntropy<float>& p)
      : MlpPass(workspace, p, blocks_for(p.hidden.N)) {}
  MlpPass(Workspace& workspace, const MlpCrossEntropy<float>& problem, int64_t blocks)
      : p(problem),
        layout(p.hidden.T, p.hidden.V, p.hidden.H),
        blocks(blocks),
        table(workspace.take<float>(layout.table())),
        sums(workspace.take<float>(blocks * layout.sums())),
        common_scale(workspace.take<float>(1)),
        totals(workspace.take<Totals>(blocks)) {}

  void run(float* loss, const MlpCrossEntropyGradients<float>& d, const Queue& queue) const {
    multiply(queue, PassTable(p.hidden, layout, table), p.hidden.T);
    if (shared_bytes(p, true) <= most_shared_bytes()) {
      pass<true>(queue);
    } else {
      pass<false>(queue);
    }
    launch(queue, {divide_up(layout.sums(), AddPasses::threads)},
           AddPasses{layout, blocks, totals, sums, p.output.options.reduction, p.output.grad_output,
                     d.output, loss, common_scale, d.factor},
           AddPasses::shared_bytes);
    GradientsFromTables<float>::run(p.hidden, sums, d.factor ? nullptr : common_scale, d.hidden,
                                    queue);
  }

 private:
  static int64_t shared_bytes(const MlpCrossEntropy<float>& p, bool split_weight) {
    return PassLayout::shared_bytes(p.hidden.T, p.hidden.V, p.hidden.H, split_weight);
  }
  // The same bits, whether the weight is split before or by those who read it.
  template <bool split_weight>
  void pass(const Queue& queue) const {
    using Kernel = MlpPassKernel<split_weight>;
    const SoftmaxLoss<float> rule(p.output.V, p.output.target, p.output.options);
    allow_shared_bytes<Kernel>(queue);
    launch(queue, {blocks},
           Kernel{{p.hidden, table, p.output.weight, p.output.bias, rule, totals, sums}},
           shared_bytes(p, split_weight));
  }
};

}  // namespace cuda
}  // namespace pymlp
