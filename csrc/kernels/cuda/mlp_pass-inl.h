// The whole model, its loss and its gradients in one pass over the examples: neither the hidden
// layer nor the logits are ever in device memory. For models of few tokens in float32, whose sums
// fit into the shared memory of a block.
//
// A block takes 32 examples at a time:
//
//   gather    hidden = tanh(bias + Σ_t table[t, token]), of the table P_t = embedding weight_tᵀ
//   logits    hidden · output weightᵀ                        by tensor cores, in slices of H
//   softmax   losses, and dlogits where the first slice was
//   output    doutput_weight += dlogitsᵀ · hidden            by tensor cores
//   dpre      (dlogits · output weight) (1 - hidden²)        by tensor cores, where hidden was
//   tokens    the table of sums of dpre by token: += dpre
//
// and keeps both sums from its first examples to its last. Those of the blocks are then added up in
// order, and the hidden layer's gradients are made from the table. The biases are a last column:
// hidden is 1 there.
#pragma once

#include "kernels/cuda/embed_linear_tanh-inl.h"
#include "kernels/cuda/table_gradients-inl.h"
#include "kernels/cuda/tensor_cores-inl.h"
#include "kernels/cuda/totals-inl.h"

namespace pymlp {
namespace cuda {

// Where the arrays of a block lie. Rows are as long as TensorFactor wants them; what fills them up
// is zero, so that products need no limits.
struct PassLayout {
  static constexpr int rows = 32;   // examples at a time
  static constexpr int slices = 3;  // of H in the logits' sums: with two 16-column tiles, 12 warps
  static constexpr int warps = 16, threads = warps * warp_size, lanes = threads / rows;

  int T, V, H;
  int padded_V, row_v, row_h;

  PYMLP_HOST_DEVICE PassLayout(int64_t T, int64_t V, int64_t H)
      : T(int(T)),
        V(int(V)),
        H(int(H)),
        padded_V(int(divide_up(V, 16) * 16)),
        row_v(padded_V + 8),
        row_h(int(divide_up(H + 1 + 8, 16) * 16 - 8)) {}

  PYMLP_HOST_DEVICE int table() const { return (T * V + 1) * H; }
  PYMLP_HOST_DEVICE int output() const { return padded_V * row_h; }
  PYMLP_HOST_DEVICE int hidden() const { return rows * row_h; }
  PYMLP_HOST_DEVICE int slice() const { return rows * row_v; }
  PYMLP_HOST_DEVICE int columns() const { return int(divide_up(H + 1, 8) * 8); }  // of products
  // What a block leaves behind: its table, then doutput_weight (V, H + 1).
  PYMLP_HOST_DEVICE int64_t sums() const { return table() + int64_t(V) * (H + 1); }

  static int64_t shared_bytes(int64_t T, int64_t V, int64_t H) {
    constexpr int64_t most = int64_t(1) << 20;  // of any of them; beyond any device
    if (T > most || V > most || H > most || (T * V + 1) * H > most || (V + 16) * (H + 24) > most) {
      return most * 8;
    }
    const PassLayout l(T, V, H);
    const auto array = [](int64_t count, int64_t size) { return divide_up(count * size, 16) * 16; };
    return array(l.table(), 4) + 2 * array(l.output(), 4) + array(l.hidden(), 4) +
           array(slices * l.slice(), 4) + 2 * array(rows * T, 4) + 2 * array(rows, 8) +
           totals_shared_bytes(threads);
  }
};

// Sums of logits, and dlogits in the place of the first.
struct SlicedLogits {
  using A = float;
  static constexpr int W = 1;
  Shared<float> slices;
  int begin, slice;  // the row; from one slice to the next
  int64_t V;
  const float* row = nullptr;  // no row in memory

  PYMLP_DEVICE float at(int64_t v) const {
    const int i = begin + int(v);
    float sum = slices[i];
#pragma unroll
    for (int s = 1; s < PassLayout::slices; ++s) sum += float(slices[s * slice + i]);
    return sum;
  }
  PYMLP_DEVICE void load(int64_t v, float (&x)[1]) const {
    x[0] = v < V ? at(v) : -infinity<float>();
  }
};

struct MlpPassKernel {
  static constexpr int threads = PassLayout::threads;
  static constexpr int rows = PassLayout::rows, lanes = PassLayout::lanes;

  EmbedLinearTanh<float> p;
  const float *table, *output_weight, *output_bias;  // P (T, V, H); the last may be null
  SoftmaxLoss<float> rule;
  Totals* totals;  // (blocks)
  float* sums;     // (blocks, PassLayout::sums())

  PYMLP_DEVICE void operator()(Thread& t) const { Block(t, *this).run(); }

 private:
  class Block {
   public:
    PYMLP_DEVICE Block(Thread& thread, const MlpPassKernel& kernel)
        : t(thread),
          k(kernel),
          l(k.p.T, k.p.V, k.p.H),
          by_token(t.shared<float>(l.table())),
          weight(t.shared<float>(l.output())),
          dweight(t.shared<float>(l.output())),
          hidden(t.shared<float>(l.hidden())),
          logits(t.shared<float>(PassLayout::slices * l.slice())),
          even_tokens(t.shared<int32_t>(rows * l.T)),
          odd_tokens(t.shared<int32_t>(rows * l.T)),
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
        add_by_token(tokens, present);
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
        float x = 0;
        if (v < l.V && h < l.H) x = k.output_weight[int64_t(v) * l.H + h];
        if (v < l.V && h == l.H && k.output_bias) x = k.output_bias[v];
        weight[i] = x;
        dweight[i] = 0.0f;
      }
      for (int i = t.thread; i < l.hidden(); i += threads) {
        hidden[i] = i % l.row_h == l.H ? 1.0f : 0.0f;
      }
      fetch(t.block * rows, even_tokens, even_targets);
      t.barrier();  // all that is there before the first examples
    }

    // The ids of the examples from n on; tokens out of range are -1.
    PYMLP_DEVICE void fetch(int64_t n, const Shared<int32_t>& tokens,
                            const Shared<int64_t>& targets) const {
      const int count = int(larger(0, smaller(rows, k.p.N - n)));
      // By the last threads first: the first ones have the columns of the table.
      for (int i = threads - 1 - t.thread; i < count * (l.T + 1); i += threads) {
        if (i < count * l.T) {
          const int64_t id = id_at(k.p.tokens, n * l.T + i);
          tokens[i] = id < 0 || id >= l.V ? -1 : int32_t(id);
        } else {
          targets[i - count * l.T] = id_at(k.rule.target, n + i - count * l.T);
        }
      }
    }

    // A warp a row; rows without an example are zero.
    PYMLP_DEVICE void gather(const Shared<int32_t>& tokens, int present) const {
      constexpr int W = vector_width<float>;
      for (int r = t.warp; r < rows; r += t.warps) {
        for (int h = t.lane * W; h < l.H; h += warp_size * W) {
          float sum[W] = {};
          if (r < present) add_rows(tokens, r, h, sum);
          Vector<float, W> x;
#pragma unroll
          for (int i = 0; i < W; ++i) {
            x.element[i] = h + i < l.H ? tanh_of(sum[i]) : h + i == l.H ? 1.0f : 0.0f;
          }
          hidden.store(r * l.row_h + h, x);
        }
      }
    }

    template <int W>
    PYMLP_DEVICE void add_rows(const Shared<int32_t>& tokens, int r, int h, float (&sum)[W]) const {
      if (k.p.bias) load_elements(k.p.bias, h, l.H, 0.0f, sum);
      for (int position = 0; position < l.T; ++position) {
        const int32_t id = tokens[r * l.T + position];
        float row[W];
        load_elements(k.table + int64_t(position * l.V + (id < 0 ? 0 : id)) * l.H, h, l.H, 0.0f,
                      row);
#pragma unroll
        for (int i = 0; i < W; ++i) sum[i] += id < 0 ? not_a_number<float>() : row[i];
      }
    }

    using Rows = TensorFactor<false>;
    using Columns = TensorFactor<true>;

    PYMLP_DEVICE void make_logits() const {
      constexpr int tiles = 2, slices = PassLayout::slices;
      const int pairs = l.padded_V / 16, steps = l.columns() / 8;
      for (int i = t.warp; i < pairs * slices * (rows / 16); i += t.warps) {
        const int slice = i / pairs % slices;
        TensorTile<tiles> tile(i / pairs / slices * 16, i % pairs * 16);
        tile.add(t, Rows{hidden, l.row_h}, Rows{weight, l.row_h}, l.padded_V,
                 steps * slice / slices * 8, steps * (slice + 1) / slices * 8);
        for_elements(tile, l.padded_V, [&](int r, int v, float sum) {
          logits[slice * l.slice() + r * l.row_v + v] = sum;
        });
      }
    }

    PYMLP_DEVICE void softmax(const Shared<int64_t>& targets, int present, Totals& mine) const {
      const int r = t.thread / lanes, at = r * l.row_v;
      const bool is_present = r < present;
      const int64_t id = is_present ? int64_t(targets[r]) : k.rule.ignore_index;
      const SlicedLogits row{logits, at, l.slice(), is_present ? l.V : 0};
      const RowSoftmax<float> s = row_softmax<lanes>(t, Shared<float>(logits), row);
      const float loss = k.rule.loss<lanes>(t, Shared<float>(logits), row, s, id);
      t.sync_warp();  // all have read the logit that one of them will overwrite
      k.rule.gradient<lanes>(t, row, s, id, 1.0f, float(l.V), false,
                             [&](int64_t v, const float (&d)[1]) {
                               if (v < l.V) logits[at + int(v)] = d[0];
                             });
      if (t.thread % lanes != 0) return;
      mine.loss += loss;
      mine.weight += k.rule.weight_of_target(id);
    }

    PYMLP_DEVICE void add_output() const {
      for_tiles(l.padded_V, [&](auto& tile) {
        tile.add(t, Columns{logits, l.row_v}, Columns{hidden, l.row_h}, l.columns(), 0, rows);
        for_elements(tile, l.columns(),
                     [&](int v, int h, float sum) { dweight[v * l.row_h + h] += sum; });
      });
    }

    PYMLP_DEVICE void make_dpre() const {
      for_tiles(rows, [&](auto& tile) {
        tile.add(t, Rows{logits, l.row_v}, Columns{weight, l.row_h}, l.columns(), 0, l.padded_V);
        for_elements(tile, l.columns(), [&](int r, int h, float sum) {
          if (h >= l.H) return;
          const int i = r * l.row_h + h;
          const float y = hidden[i];
          hidden[i] = sum * (1 - y * y);
        });
      });
    }

    // body(tile) for the tiles of a product of M rows and the columns of the hidden layer.
    template <class Body>
    PYMLP_DEVICE void for_tiles(int M, const Body& body) const {
      constexpr int tiles = 4, width = tiles * tensor_columns;
      const int across = (l.columns() + width - 1) / width;
      for (int i = t.warp; i < M / tensor_rows * across; i += t.warps) {
        TensorTile<tiles> tile(i / across * tensor_rows, i % across * width);
        body(tile);
      }
    }

    // body(row, column, sum) for those elements of a tile that a lane has, in columns before J.
    template <int tiles, class Body>
    PYMLP_DEVICE void for_elements(const TensorTile<tiles>& tile, int J, const Body& body) const {
#pragma unroll
      for (int n = 0; n < tiles; ++n) {
        if (tile.j0 + n * tensor_columns >= J) break;
#pragma unroll
        for (int e = 0; e < 4; ++e) body(tile.row(t, e), tile.column(t, n, e), tile.sum[n][e]);
      }
    }

    // A thread a column, so that each sum is made by one, example after example.
    PYMLP_DEVICE void add_by_token(const Shared<int32_t>& tokens, int present) const {
      for (int h = t.thread; h < l.H; h += threads) {
        float all = 0;
        for (int r = 0; r < present; ++r) {
          const float dpre = hidden[r * l.row_h + h];
          all += dpre;
          for (int first = 0; first < l.T; first += together) {
            add_to_positions(tokens, r, first, h, dpre);
          }
        }
        by_token[l.T * l.V * l.H + h] += all;
      }
    }

    // Sums of different positions lie apart: they can be on their way together.
    static constexpr int together = 4;
    PYMLP_DEVICE void add_to_positions(const Shared<int32_t>& tokens, int r, int first, int h,
                                       float dpre) const {
      int at[together];
      float sum[together];
#pragma unroll
      for (int j = 0; j < together; ++j) {
        const int position = first + j;
        const int32_t id = position < l.T ? int32_t(tokens[r * l.T + position]) : -1;
        at[j] = id < 0 ? -1 : (position * l.V + id) * l.H + h;
        if (at[j] >= 0) sum[j] = by_token[at[j]];
      }
#pragma unroll
      for (int j = 0; j < together; ++j) {
        if (at[j] >= 0) by_token[at[j]] = sum[j] + dpre;
      }
    }

    PYMLP_DEVICE void end(const Totals& mine) const {
      const Totals all = block_totals(t, mine);
      if (t.thread == 0) k.totals[t.block] = all;
      float* const out = k.sums + t.block * l.sums();
      for (int i = t.thread; i < l.table(); i += threads) out[i] = by_token[i];
      for (int i = t.thread; i < l.V * (l.H + 1); i += threads) {
        out[l.table() + i] = dweight[i / (l.H + 1) * l.row_h + i % (l.H + 1)];
      }
    }

    Thread& t;
    const MlpPassKernel& k;
    const PassLayout l;
    const Shared<float> by_token, weight, dweight, hidden, logits;
    const Shared<int32_t> even_tokens, odd_tokens;  // of a block's even and odd steps
    const Shared<int64_t> even_targets, odd_targets;
  };
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
    Totals mine{0, 0};
    for (int64_t i = t.thread; i < blocks; i += threads) {
      mine.loss += totals[i].loss;
      mine.weight += totals[i].weight;
    }
    const Totals all = block_totals(t, mine);
    const float scale = scale_of(all);
    if (t.block == 0 && t.thread == 0) {
      *loss = reduced_loss<float>(reduction, all);
      *common_scale = scale;
      if (factor) *factor = scale;
    }
    const int64_t i = t.block * threads + t.thread;
    if (i < layout.sums()) store(i, factor ? 1.0f : scale);
  }

 private:
  // Of no token that counts the gradients are zero, and the mean's factor infinite.
  PYMLP_DEVICE float scale_of(const Totals& all) const {
    if (reduction == Reduction::mean && all.weight == 0) return 1;
    const double normalizer = reduction == Reduction::mean ? all.weight : 1;
    return float((grad_output ? grad_output[0] : 1.0f) / normalizer);
  }

  PYMLP_DEVICE void store(int64_t i, float scale) const {
    float sum = -0.0f;
#pragma unroll 16
    for (int64_t block = 0; block < blocks; ++block) sum += sums[block * layout.sums() + i];
    if (i < layout.table()) {
      sums[i] = sum;
      return;
    }
    const int64_t v = (i - layout.table()) / (layout.H + 1);
    const int64_t h = (i - layout.table()) % (layout.H + 1);
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
    return z.N > 0 && z.H > 0 && p.output.V == z.V && options.reduction != Reduction::none &&
           !options.class_weight && options.softcap == 0 && shared_bytes(p) <= most_shared_bytes();
  }

  MlpPass(Workspace& workspace, const MlpCrossEntropy<float>& problem)
      : p(problem),
        layout(p.hidden.T, p.hidden.V, p.hidden.H),
        blocks(blocks_for(p.hidden.N)),
        table(workspace.take<float>(p.hidden.T * p.hidden.V * p.hidden.H)),
        sums(workspace.take<float>(blocks * layout.sums())),
        common_scale(workspace.take<float>(1)),
        totals(workspace.take<Totals>(blocks)) {}

  void run(float* loss, const MlpCrossEntropyGradients<float>& d, const Queue& queue) const;

 private:
  static int64_t shared_bytes(const MlpCrossEntropy<float>& p) {
    return PassLayout::shared_bytes(p.hidden.T, p.hidden.V, p.hidden.H);
  }
  // As many as an H100 runs at once; more, where a block would have more than 1,024 examples, and
  // sums of so many terms.
  static int64_t blocks_for(int64_t N) {
    constexpr int64_t most_examples = 1024;
    return smaller(divide_up(N, PassLayout::rows),
                   multiprocessors * divide_up(N, multiprocessors * most_examples));
  }
};

inline void MlpPass::run(float* loss, const MlpCrossEntropyGradients<float>& d,
                         const Queue& queue) const {
  const SoftmaxLoss<float> rule(p.output.V, p.output.target, p.output.options);
  multiply(queue, TableProduct<float>(p.hidden, table), p.hidden.T);
  allow_shared_bytes<MlpPassKernel>(queue);
  launch(queue, {blocks},
         MlpPassKernel{p.hidden, table, p.output.weight, p.output.bias, rule, totals, sums},
         shared_bytes(p));
  launch(queue, {divide_up(layout.sums(), AddPasses::threads)},
         AddPasses{layout, blocks, totals, sums, p.output.options.reduction, p.output.grad_output,
                   d.output, loss, common_scale, d.factor},
         AddPasses::shared_bytes);
  GradientsFromTables<float>::run(p.hidden, sums, d.factor ? nullptr : common_scale, d.hidden,
                                  queue);
}

}  // namespace cuda
}  // namespace pymlp
