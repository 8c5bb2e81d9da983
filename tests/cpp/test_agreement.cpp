// Every instruction set against the baseline, in every storage type, where the plain loops of
// naive_mlp.h do not go: 16-bit numbers, class weights, ignored targets, logits without bound.
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "kernels_fixture.h"
#include "numbers.h"

namespace {

using namespace pymlp;
using namespace numbers;

// `results` computes some arrays with the active instruction set; each has to equal the baseline's.
template <class Results>
void agrees_with_baseline(double tolerance, Results results) {
  std::vector<std::vector<double>> truth;
  const std::string before = active_kernels().isa;
  CHECK(force_isa("baseline"));
  truth = results(active_kernels());
  CHECK(force_isa(before.c_str()));
  fixture::for_each_isa([&](const KernelTable& table) {
    const std::vector<std::vector<double>> got = results(table);
    for (size_t a = 0; a < truth.size(); ++a) {
      for (size_t i = 0; i < truth[a].size(); ++i) {
        CHECK_NEAR(got[a][i], truth[a][i], tolerance * (1 + std::fabs(truth[a][i])));
      }
    }
  });
}

// Loss and gradient of rows that hold anything a float16 holds, with every third target ignored.
template <class S>
void check_cross_entropy(int64_t V) {
  using A = Accumulate<S>;
  const int64_t N = 12;
  std::mt19937 random(static_cast<unsigned>(V));
  std::vector<S> input = eighths<S>(random, N * V);
  const float extremes[] = {1e4f, -1e4f, -infinity, 0.0f};
  for (int64_t n = 0; n < N; n += 2) convert(extremes[n / 2 % 4], input[n * V + V / 2]);
  std::vector<S> class_weight(V);
  for (int64_t v = 0; v < V; ++v) convert(float(v % 7 + 1) / 4, class_weight[v]);
  std::vector<int32_t> target(N);
  for (int64_t n = 0; n < N; ++n) target[n] = n % 3 == 0 ? -100 : int32_t(n % V);

  CrossEntropy<S> problem{N, V, input.data(), {target.data(), false}, {}};
  problem.options.class_weight = class_weight.data();
  problem.options.reduction = Reduction::none;
  agrees_with_baseline(tolerance<S>, [&](const KernelTable& table) {
    const Kernels<S>& k = table.of<S>();
    std::vector<A> loss(N), softmax(2 * N), grad_output(N, A(0.75));
    std::vector<S> dinput(N * V);
    {
      const fixture::Scratch scratch(k.cross_entropy_forward_workspace(problem));
      k.cross_entropy_forward(problem, loss.data(), softmax.data(), scratch.get(), Serial());
    }
    {
      const fixture::Scratch scratch(k.cross_entropy_backward_workspace(problem));
      k.cross_entropy_backward(problem, softmax.data(), grad_output.data(), dinput.data(),
                               scratch.get(), Serial());
    }
    return std::vector<std::vector<double>>{values(loss), values(dinput)};
  });
}

// Loss and gradients of the whole model, with label smoothing, z_loss and softcap.
template <class S>
void check_mlp_cross_entropy(int64_t V, int64_t H) {
  const int64_t N = 19, T = 3, E = 5;
  std::mt19937 random(static_cast<unsigned>(V + 64 * H));
  const std::vector<S> embedding = eighths<S>(random, V * E),
                       weight = eighths<S>(random, H * T * E), bias = eighths<S>(random, H),
                       output_weight = eighths<S>(random, V * H),
                       output_bias = eighths<S>(random, V);
  std::vector<int64_t> tokens(N * T), targets(N);
  for (int64_t& id : tokens) id = int64_t(random() % uint64_t(V));
  for (int64_t& id : targets) id = int64_t(random() % uint64_t(V));

  MlpCrossEntropy<S> problem{
      {N, T, V, E, H, {tokens.data(), true}, embedding.data(), weight.data(), bias.data()},
      {N,
       H,
       V,
       nullptr,
       output_weight.data(),
       output_bias.data(),
       {targets.data(), true},
       {},
       nullptr}};
  problem.output.options.label_smoothing = 0.125;
  problem.output.options.z_loss = 0.01;
  problem.output.options.softcap = 4;
  agrees_with_baseline(10 * tolerance<S>, [&](const KernelTable& table) {
    const Kernels<S>& k = table.of<S>();
    std::vector<Accumulate<S>> loss(1);
    std::vector<S> dembedding(V * E), dweight(H * T * E), dbias(H), doutput_weight(V * H),
        doutput_bias(V);
    const MlpCrossEntropyGradients<S> out{{dembedding.data(), dweight.data(), dbias.data()},
                                          {nullptr, doutput_weight.data(), doutput_bias.data()}};
    const fixture::Scratch scratch(k.mlp_cross_entropy_workspace(problem, true));
    k.mlp_cross_entropy(problem, loss.data(), &out, scratch.get(), Serial());
    return std::vector<std::vector<double>>{values(loss),           values(dembedding),
                                            values(dweight),        values(dbias),
                                            values(doutput_weight), values(doutput_bias)};
  });
}

template <class S>
void check_all_sizes() {
  for (int64_t V = 1; V <= 33; ++V) {
    check_cross_entropy<S>(V);
    check_mlp_cross_entropy<S>(V, 34 - V);
  }
}

}  // namespace

TEST(instruction_sets_agree_in_every_storage_type) {
  check_all_sizes<float>();
  check_all_sizes<double>();
  check_all_sizes<bfloat16>();
  check_all_sizes<float16>();
}

TEST(the_fastest_instruction_set_is_the_default) {
#if defined(__aarch64__)
  CHECK_EQ(std::string(active_kernels().isa), "neon");
#endif
  for (int i = 0; i < isa_count(); ++i) {
    if (!isa_entry(i).supported()) continue;
    CHECK_EQ(&active_kernels(), isa_entry(i).table);
    break;
  }
}
