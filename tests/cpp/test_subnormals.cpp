// No kernel makes a subnormal number of ordinary ones: a processor may take a hundred times as long
// for an operation that meets one. x86-64 keeps a record of them.
#if defined(__x86_64__)
#include <xmmintrin.h>

#include <random>

#include "mlp_problem.h"
#include "numbers.h"

namespace {

using namespace pymlp;
using namespace fixture;

// Whether `body` reads a subnormal number (DE) or rounds a result to one (UE).
template <class Body>
bool meets_subnormals(const Body& body) {
  constexpr unsigned denormal_operand = 0x02, underflow = 0x10;
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before & ~(denormal_operand | underflow));
  body();
  const bool met = _mm_getcsr() & (denormal_operand | underflow);
  _mm_setcsr(before);
  return met;
}

template <class Body>
void check_normal(const char* kernel, const char* type, int64_t V, const Body& body) {
  if (!check::report(!meets_subnormals(body), __FILE__, __LINE__, kernel)) {
    std::cerr << "  subnormal numbers of " << type << " at V = " << V << "\n";
  }
}

// The loss of logits (N, V) and its gradient.
template <class S>
void check_cross_entropy(const KernelTable& table, const char* type, int64_t V,
                         const std::vector<S>& logits, double smoothing) {
  using A = Accumulate<S>;
  const Kernels<S>& k = table.of<S>();
  const int64_t N = int64_t(logits.size()) / V;
  std::mt19937 random(static_cast<unsigned>(V));
  const std::vector<int64_t> target = numbers::ids(random, N, V);
  CrossEntropy<S> problem{N, V, logits.data(), {target.data(), true}, {}};
  problem.options.label_smoothing = smoothing;
  std::vector<A> loss(1), softmax(2 * N);
  std::vector<S> dinput(N * V);
  const A one = 1;
  check_normal("cross_entropy_forward", type, V, [&] {
    const Scratch scratch(k.cross_entropy_forward_workspace(problem));
    k.cross_entropy_forward(problem, loss.data(), softmax.data(), scratch.get(), Serial());
  });
  check_normal("cross_entropy_backward", type, V, [&] {
    const Scratch scratch(k.cross_entropy_backward_workspace(problem));
    k.cross_entropy_backward(problem, softmax.data(), &one, dinput.data(), scratch.get(), Serial());
  });
}

// Rows of logits as a model has them; and spread from 0 to far below, further from row to row.
template <class S>
void check_losses(const KernelTable& table, const char* type, int64_t V, float farthest) {
  std::mt19937 random(static_cast<unsigned>(V));
  constexpr int64_t N = 11;
  std::vector<S> far(N * V);
  for (int64_t i = 0; i < N * V; ++i) {
    const float row = float(i / V + 1) / N, column = float(i % V) / float(V);
    numbers::convert(-farthest * row * column, far[i]);
  }
  for (double smoothing : {0.0, 0.1}) {
    check_cross_entropy(table, type, V, numbers::normals<S>(random, N * V, 3), smoothing);
    check_cross_entropy(table, type, V, far, smoothing);
  }
}

template <class T>
void check_update(const KernelTable& table, const char* type, const Problem<T>& p, bool adamw) {
  Problem<T> updated = p;
  Gradients<T> first(p), second(p);
  const Gradients<T> g = run_mlp(table, p, Serial());
  const auto parameter = [&](std::vector<T> Gradients<T>::* of, std::vector<T>& values) {
    return UpdatedParameter<T>{(g.*of).data(), values.data(), (first.*of).data(),
                               (second.*of).data()};
  };
  MlpUpdate<T> update{};
  update.N = p.N;
  update.T = p.T_;
  update.V = p.V;
  update.E = p.E;
  update.H = p.H;
  update.embedding = parameter(&Gradients<T>::embedding, updated.embedding);
  update.hidden_weight = parameter(&Gradients<T>::weight, updated.weight);
  update.hidden_bias = parameter(&Gradients<T>::bias, updated.bias);
  update.output_weight = parameter(&Gradients<T>::output_weight, updated.output_weight);
  update.output_bias = parameter(&Gradients<T>::output_bias, updated.output_bias);
  update.step = {adamw, 0.01, 0.9, 0.1, true, 0.9, 0.99, 1e-8};
  check_normal("mlp_update", type, p.V, [&] {
    for (update.step.step = 1; update.step.step <= 3; ++update.step.step) {
      table.of<T>().mlp_update(update, Serial());
    }
  });
}

template <class T>
void check_model(const KernelTable& table, const char* type, int64_t V) {
  const Problem<T> p(9, 3, V, 5, 1 + V % 40);
  check_normal("mlp_cross_entropy", type, V, [&] { run_mlp(table, p, Serial()); });
  // The output layer by vocabulary.
  const Problem<T> gathered = p.with(true, 0);
  check_normal("mlp_cross_entropy", type, V, [&] { run_mlp(table, gathered, Serial()); });
  MlpLogits<T> logits{p.hidden(), p.output_weight.data(), p.output_bias.data()};
  std::vector<T> out(p.N * V);
  check_normal("mlp_logits", type, V, [&] {
    const Scratch scratch(table.of<T>().mlp_logits_workspace(logits));
    table.of<T>().mlp_logits(logits, out.data(), scratch.get(), Serial());
  });
  check_normal("exp", type, V, [&] { table.of<T>().exp(V, out.data(), out.data()); });
  check_update(table, type, p, false);
  check_update(table, type, p, true);
}

}  // namespace

TEST(ordinary_numbers_make_no_subnormal_ones) {
  for_each_isa([](const KernelTable& table) {
    for (int64_t V = 1; V <= 65; ++V) {
      check_losses<float>(table, "float32", V, 300);
      check_losses<double>(table, "float64", V, 3000);
      check_losses<bfloat16>(table, "bfloat16", V, 300);
      check_losses<float16>(table, "float16", V, 300);
      check_model<float>(table, "float32", V);
      check_model<double>(table, "float64", V);
    }
  });
}

// An instrument that shows nothing would make the test above green.
TEST(subnormal_numbers_are_noticed) {
  volatile float smallest = std::numeric_limits<float>::min(), subnormal = smallest / 2;
  CHECK(meets_subnormals([&] { smallest = smallest * 0.3f; }));
  CHECK(meets_subnormals([&] { smallest = subnormal + 1.0f; }));
  CHECK(!meets_subnormals([&] { smallest = 1.0f; }));
}
#endif
