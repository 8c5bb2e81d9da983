// THE contract between the kernels and whoever calls them (csrc/ops, csrc/engine, tests/cpp).
//
// Every kernel takes pointers and sizes and writes numbers. None of them allocates, throws, prints
// or keeps state. All arrays are dense and row-major; a shape stands behind each pointer. Outputs
// are overwritten, never accumulated into, and may not overlap inputs or each other; the updates of
// the optimizers alone work in place.
//
// Storage types S are float, double, bfloat16 and float16; arithmetic is done in Accumulate<S>,
// which is double for double and float for the others.
//
// Determinism: each output element is computed by exactly one task, which adds its terms in an
// order that depends on sizes and ids alone. The same inputs give the same bits, whatever
// `Parallel` does with the tasks and however many threads it has. Different instruction sets may
// differ in the last bits.
//
// Ids (tokens, targets) must be in range: the caller checks them (csrc/ops/checks.h). On CUDA,
// where checking would wait for the device, they may be anything, and one out of range reads and
// writes nothing outside the arrays: a token makes its example's row of the hidden layer NaN, a
// target its row's loss and gradient, and NaN goes on from there as arithmetic has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/half.h"
#include "kernels/parallel.h"

namespace pymlp {

template <class S>
struct AccumulateOf {
  using type = float;
};
template <>
struct AccumulateOf<double> {
  using type = double;
};
template <class S>
using Accumulate = typename AccumulateOf<S>::type;

// Ids as the user stores them: int64 or int32.
struct Ids {
  const void* data = nullptr;
  bool is_int64 = true;

  // Inlined always: compiled for one instruction set it must not serve another.
  __attribute__((always_inline)) int64_t operator[](int64_t i) const {
    return is_int64 ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
  }
};

// hidden = tanh(concat_t(embedding[tokens[:, t]]) weightᵀ + bias)
template <class S>
struct EmbedLinearTanh {
  int64_t N, T, V, E, H;         // examples, block_size, vocab_size, n_embd, n_hidden
  Ids tokens;                    // (N, T)
  const S* embedding = nullptr;  // (V, E)
  const S* weight = nullptr;     // (H, T*E)
  const S* bias = nullptr;       // (H), or null for none
};

template <class S>
struct EmbedLinearTanhGradients {
  S* embedding = nullptr;  // (V, E)
  S* weight = nullptr;     // (H, T*E)
  S* bias = nullptr;       // (H), or null for none
};

enum class Reduction : int64_t { none = 0, mean = 1, sum = 2 };

// The options of F.cross_entropy, and two common extensions: z_loss and softcap.
template <class S>
struct CrossEntropyOptions {
  const S* class_weight = nullptr;  // (V), or null: all ones
  int64_t ignore_index = -100;
  Reduction reduction = Reduction::mean;
  double label_smoothing = 0;
  double z_loss = 0;   // adds z_loss * logsumexp² to the loss of each token
  double softcap = 0;  // if > 0: logits are replaced by softcap * tanh(logits / softcap)
};

// loss = cross_entropy(input, target)
template <class S>
struct CrossEntropy {
  int64_t N, V;
  const S* input = nullptr;  // (N, V)
  Ids target;                // (N)
  CrossEntropyOptions<S> options;
};

// loss = cross_entropy(input weightᵀ + bias, target)
template <class S>
struct LinearCrossEntropy {
  int64_t N, H, V;
  const S* input = nullptr;   // (N, H)
  const S* weight = nullptr;  // (V, H)
  const S* bias = nullptr;    // (V), or null for none
  Ids target;                 // (N)
  CrossEntropyOptions<S> options;
  // The factors of the gradients: (N) for Reduction::none, else (1); null: ones.
  const Accumulate<S>* grad_output = nullptr;
};

template <class S>
struct LinearCrossEntropyGradients {
  S* input = nullptr;   // (N, H)
  S* weight = nullptr;  // (V, H)
  S* bias = nullptr;    // (V), or null for none
};

// Which of a layer's inputs are kept, and multiplied with 1 / (1 - p): those that are not 0.
struct Dropout {
  const uint8_t* input = nullptr;   // (N, T*E), of the embeddings; null: no dropout
  const uint8_t* hidden = nullptr;  // (N, H), of the hidden layer; not null where input is not
  double p = 0;
};

// The rows of the embedding that occur in a batch, in order of first appearance: those that a
// sparse gradient has. It lies as a dense one does, with anything in the other rows.
struct SparseRows {
  int32_t* tokens = nullptr;  // (min(V, N*T)), set up to `count`; null: the gradient is dense
  int64_t* count = nullptr;   // (1)
};

// The whole model and its loss: embed_linear_tanh, then linear_cross_entropy on its result.
// output.input is not used: the hidden layer lives in the workspace, a chunk of rows at a time.
// output.V may be less than hidden.V, of rows that the caller has chosen; not on CUDA.
template <class S>
struct MlpCrossEntropy {
  EmbedLinearTanh<S> hidden;
  LinearCrossEntropy<S> output;
  bool output_weight_in_blocks = false;  // output.weight and its gradient: see Kernels::to_blocks;
                                         // not where divides_vocabulary
  const S* direct = nullptr;  // (V, T*E), or null: a weight from the embeddings to the logits
  Dropout dropout{};
  SparseRows sparse{};  // out: if not null, the gradient of the embedding is sparse; S is wide then
                        // None of the three on CUDA.
};

// Whether the CPU's kernels divide the rows of the output layer's weight (V, H) among threads, the
// words of the vocabulary; else they divide the columns of the hidden layer. gathers: whether x,
// the embeddings side by side, or its gradient is needed as it stands: for direct connections, for
// dropout, since the gradient of the embedding is sparse, or since the output layer is sampled.
__attribute__((always_inline)) inline bool divides_vocabulary(int64_t V, int64_t H, bool gathers) {
  return gathers || (V > H && V > 1024);
}

template <class S>
struct MlpCrossEntropyGradients {
  EmbedLinearTanhGradients<S> hidden;
  LinearCrossEntropyGradients<S> output;  // .input is not used
  S* direct = nullptr;                    // (V, T*E), where there are direct connections
  // If not null: left out of the gradients, the factor that all of them are to be multiplied with.
  Accumulate<S>* factor = nullptr;
};

// logits = hidden weightᵀ + bias for the hidden layer of embed_linear_tanh, and of its inputs x
// x directᵀ.
template <class A>
struct MlpLogits {
  EmbedLinearTanh<A> hidden;
  const A* weight = nullptr;  // (V, H)
  const A* bias = nullptr;    // (V), or null for none
  const A* direct = nullptr;  // (V, T*E), or null for none; not on CUDA
};

// One update of all parameters by the rule of torch.optim.SGD or torch.optim.AdamW.
struct OptimizerStep {
  bool adamw = false;
  double lr = 0, momentum = 0, weight_decay = 0;
  bool decay_biases = true;              // whether weight_decay is for biases too
  double beta1 = 0, beta2 = 0, eps = 0;  // AdamW
  int64_t step = 1;                      // AdamW: the number of this update, from 1
  double factor = 1;                     // what the gradients are multiplied with first
};

// A parameter, updated in place with its optimizer's state.
template <class A>
struct UpdatedParameter {
  const A* gradient = nullptr;
  A* parameter = nullptr;  // null: frozen, stays as it is
  A* first = nullptr;      // SGD: momentum buffer, or null for no momentum; AdamW: exp_avg
  A* second = nullptr;     // AdamW: exp_avg_sq
};

// The parameters of MlpCrossEntropy, and its N, which decides what a thread has in its caches.
template <class A>
struct MlpUpdate {
  int64_t N, T, V, E, H;
  UpdatedParameter<A> embedding, hidden_weight, hidden_bias, output_weight, output_bias;
  UpdatedParameter<A> direct;  // (V, T*E), where there are direct connections
  OptimizerStep step;
  bool output_weight_in_blocks = false;  // all arrays of output_weight: see Kernels::to_blocks
  SparseRows sparse{};  // if not null, other rows of the embedding and of its state stay as they
                        // are
  int64_t outputs = 0;  // rows of the output layer if they are not V
                        // Neither of the two on CUDA, nor with output_weight_in_blocks.
};

// Steps of training: the gradients of the loss, then the update. Of update.step only what stays the
// same from step to step is used.
template <class A>
struct MlpStep {
  MlpCrossEntropy<A> loss;
  MlpCrossEntropyGradients<A> gradients;  // scratch for the caller, who finds anything there
  MlpUpdate<A> update;                    // of loss's parameters by those gradients
};

// The kernels of one storage type on one kind of device. Executor: whose work it is, Parallel for
// the CPU's threads. `workspace` holds at least as many bytes as the kernel's `_workspace` function
// says, aligned to 64; its contents are scratch.
template <class S, class Executor>
struct Operators {
  using A = Accumulate<S>;

  // hidden: (N, H).
  size_t (*embed_linear_tanh_forward_workspace)(const EmbedLinearTanh<S>&);
  void (*embed_linear_tanh_forward)(const EmbedLinearTanh<S>&, S* hidden, void* workspace,
                                    const Executor&);
  // hidden (the forward's result), dhidden: (N, H).
  size_t (*embed_linear_tanh_backward_workspace)(const EmbedLinearTanh<S>&);
  void (*embed_linear_tanh_backward)(const EmbedLinearTanh<S>&, const S* hidden, const S* dhidden,
                                     const EmbedLinearTanhGradients<S>&, void* workspace,
                                     const Executor&);

  // loss: (N) for Reduction::none, else (1). softmax: (N, 2), each row's maximum and sum of
  // exp(input - maximum), all that the backward needs besides the input.
  size_t (*cross_entropy_forward_workspace)(const CrossEntropy<S>&);
  void (*cross_entropy_forward)(const CrossEntropy<S>&, A* loss, A* softmax, void* workspace,
                                const Executor&);
  // grad_output: (N) for Reduction::none, else (1). dinput: (N, V).
  size_t (*cross_entropy_backward_workspace)(const CrossEntropy<S>&);
  void (*cross_entropy_backward)(const CrossEntropy<S>&, const A* softmax, const A* grad_output,
                                 S* dinput, void* workspace, const Executor&);

  // loss: (N) for Reduction::none, else (1). gradients: those of sum(grad_output * loss), or null
  // for the loss alone.
  size_t (*linear_cross_entropy_workspace)(const LinearCrossEntropy<S>&, bool gradients);
  void (*linear_cross_entropy)(const LinearCrossEntropy<S>&, A* loss,
                               const LinearCrossEntropyGradients<S>* gradients, void* workspace,
                               const Executor&);

  // The same for the whole model.
  size_t (*mlp_cross_entropy_workspace)(const MlpCrossEntropy<S>&, bool gradients);
  void (*mlp_cross_entropy)(const MlpCrossEntropy<S>&, A* loss,
                            const MlpCrossEntropyGradients<S>* gradients, void* workspace,
                            const Executor&);

  // logits: (N, V).
  size_t (*mlp_logits_workspace)(const MlpLogits<A>&);
  void (*mlp_logits)(const MlpLogits<A>&, A* logits, void* workspace, const Executor&);

  // Updates the parameters in place, in one phase.
  void (*mlp_update)(const MlpUpdate<A>&, const Executor&);
};

// The operators of one instruction set, and kernels that only the CPU's callers ask for.
template <class S>
struct Kernels : Operators<S, Parallel> {
  using A = Accumulate<S>;

  // Steps of one problem. mlp_steps makes what they have in common, in the workspace, as long as
  // the problem stays where it is; mlp_step is one of them, by a rule whose factor is not used.
  // loss: (1), before the update. Abandoned by `Parallel`, a step leaves all parameters as they
  // were.
  size_t (*mlp_steps_workspace)(const MlpStep<A>&);
  void (*mlp_steps)(const MlpStep<A>&, void* workspace);
  void (*mlp_step)(void* workspace, const OptimizerStep&, A* loss, const Parallel&);

  // logits: (N), of the targets (N) alone: H multiply-adds each instead of V * H.
  size_t (*mlp_target_logits_workspace)(const MlpLogits<A>&);
  void (*mlp_target_logits)(const MlpLogits<A>&, Ids targets, A* logits, void* workspace,
                            const Parallel&);

  // A matrix (rows, H) in the blocks of columns that the kernels of a problem of N examples divide
  // among threads: each block's columns by themselves, so that two threads never write to the same
  // cache line. in_blocks_size: its elements, padding included.
  int64_t (*in_blocks_size)(int64_t N, int64_t rows, int64_t H);
  void (*to_blocks)(int64_t N, int64_t rows, int64_t H, const A* dense, A* blocks);
  void (*from_blocks)(int64_t N, int64_t rows, int64_t H, const A* blocks, A* dense);

  // out[i] = exp(in[i]), tanh(in[i]); error bounds are stated in cpu/math-inl.h.
  void (*exp)(int64_t n, const A* in, A* out);
  void (*tanh)(int64_t n, const A* in, A* out);

  // In double precision and an order that depends on n alone.
  double (*sum_of_squares)(int64_t n, const A* x);
};

// All kernels of one instruction set. lanes is the number of floats in a vector as the compiler saw
// it in that set's source file, so that a test can tell which code it runs.
struct KernelTable {
  const char* isa;
  int lanes;
  Kernels<float> float32;
  Kernels<double> float64;
  Kernels<bfloat16> bf16;
  Kernels<float16> f16;

  template <class S>
  __attribute__((always_inline)) const Kernels<S>& of() const {
    if constexpr (std::is_same<S, float>::value) return float32;
    if constexpr (std::is_same<S, double>::value) return float64;
    if constexpr (std::is_same<S, bfloat16>::value) return bf16;
    if constexpr (std::is_same<S, float16>::value) return f16;
  }
};

}  // namespace pymlp
