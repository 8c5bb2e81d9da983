// Every kernel, with every instruction set, against the plain loops of naive_mlp.h in float64: odd
// sizes around the vector widths, and the same bits however the work is divided.
#include <cstring>
#include <random>
#include <string>

#include "kernels_fixture.h"
#include "naive_mlp.h"

namespace {

using namespace pymlp;

// A model and a batch of storage type T, random but for its sizes.
template <class T>
struct Problem {
  int64_t N, T_, V, E, H;
  std::vector<int64_t> tokens, targets;
  std::vector<T> embedding, weight, bias, output_weight, output_bias;

  Problem(int64_t N, int64_t T_, int64_t V, int64_t E, int64_t H) : N(N), T_(T_), V(V), E(E), H(H) {
    std::mt19937 random(static_cast<unsigned>(N + 7 * T_ + 31 * V + 101 * E + 1009 * H));
    std::normal_distribution<double> normal;
    const auto values = [&](int64_t count) {
      std::vector<T> v(count);
      for (T& x : v) x = T(normal(random));
      return v;
    };
    const auto ids = [&](int64_t count) {
      std::vector<int64_t> v(count);
      for (int64_t& x : v) x = int64_t(random() % uint64_t(V));
      return v;
    };
    tokens = ids(N * T_);
    targets = ids(N);
    embedding = values(V * E);
    weight = values(H * T_ * E);
    bias = values(H);
    output_weight = values(V * H);
    output_bias = values(V);
  }

  EmbedLinearTanh<T> hidden() const {
    return {N, T_, V, E, H, {tokens.data(), true}, embedding.data(), weight.data(), bias.data()};
  }
  LinearCrossEntropy<T> output(const T* input) const {
    return {N,  H,      V, input, output_weight.data(), output_bias.data(), {targets.data(), true},
            {}, nullptr};
  }
  naive::Model<T> naive_model() const {
    return {N, T_, V, E, H, tokens, targets, embedding, weight, bias, output_weight, output_bias};
  }
};

// All outputs of mlp_cross_entropy in one array each.
template <class T>
struct Gradients {
  std::vector<T> embedding, weight, bias, output_weight, output_bias;
  T loss = 0;

  explicit Gradients(const Problem<T>& p)
      : embedding(p.V * p.E),
        weight(p.H * p.T_ * p.E),
        bias(p.H),
        output_weight(p.V * p.H),
        output_bias(p.V) {}
};

template <class T>
Gradients<T> run_mlp(const KernelTable& table, const Problem<T>& p, const Parallel& parallel) {
  const MlpCrossEntropy<T> problem{p.hidden(), p.output(nullptr)};
  Gradients<T> g(p);
  const MlpCrossEntropyGradients<T> out{{g.embedding.data(), g.weight.data(), g.bias.data()},
                                        {nullptr, g.output_weight.data(), g.output_bias.data()}};
  const fixture::Scratch scratch(table.of<T>().mlp_cross_entropy_workspace(problem, true));
  table.of<T>().mlp_cross_entropy(problem, &g.loss, &out, scratch.get(), parallel);
  return g;
}

template <class T>
void check_close(const std::vector<T>& got, const std::vector<double>& truth, double tolerance,
                 const char* what) {
  double largest = 1;
  for (double x : truth) largest = std::max(largest, std::fabs(x));
  for (size_t i = 0; i < got.size(); ++i) {
    check::near(double(got[i]), truth[i], tolerance * largest, __FILE__, __LINE__, what);
  }
}

template <class T>
void check_against_naive(const KernelTable& table, const Problem<T>& p, double tolerance) {
  const naive::Gradients truth = naive::mlp_cross_entropy(p.naive_model());
  const Gradients<T> got = run_mlp(table, p, Serial());
  CHECK_NEAR(double(got.loss), truth.loss, tolerance * (1 + std::fabs(truth.loss)));
  check_close(got.embedding, truth.embedding, tolerance, "dembedding");
  check_close(got.weight, truth.weight, tolerance, "dweight");
  check_close(got.bias, truth.bias, tolerance, "dbias");
  check_close(got.output_weight, truth.output_weight, tolerance, "doutput_weight");
  check_close(got.output_bias, truth.output_bias, tolerance, "doutput_bias");
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
void check_division_of_work(const KernelTable& table, const Problem<T>& p) {
  const Gradients<T> serial = run_mlp(table, p, Serial());
  const Gradients<T> divided = run_mlp(table, p, fixture::ManyTasks(3));
  CHECK_EQ(serial.loss, divided.loss);
  CHECK(same_bits(serial.embedding, divided.embedding));
  CHECK(same_bits(serial.weight, divided.weight));
  CHECK(same_bits(serial.bias, divided.bias));
  CHECK(same_bits(serial.output_weight, divided.output_weight));
  CHECK(same_bits(serial.output_bias, divided.output_bias));
}

}  // namespace

TEST(mlp_cross_entropy_at_every_width) {
  fixture::for_each_isa([](const KernelTable& table) {
    for (int64_t width = 1; width <= 33; ++width) {
      check_against_naive(table, Problem<float>(9, 3, width, 5, 34 - width), 2e-5);
      check_against_naive(table, Problem<double>(9, 2, width, 3, 34 - width), 1e-13);
    }
  });
}

TEST(mlp_cross_entropy_at_awkward_sizes) {
  fixture::for_each_isa([](const KernelTable& table) {
    check_against_naive(table, Problem<float>(1, 1, 1, 1, 1), 1e-5);
    check_against_naive(table, Problem<float>(0, 3, 5, 2, 4), 1e-5);
    check_against_naive(table, Problem<float>(700, 3, 27, 10, 200), 1e-4);
    check_against_naive(table, Problem<float>(40, 8, 500, 24, 40), 1e-4);
    check_against_naive(table, Problem<double>(300, 4, 3, 1, 17), 1e-12);
  });
}

TEST(results_do_not_depend_on_the_division_of_work) {
  fixture::for_each_isa([](const KernelTable& table) {
    check_division_of_work(table, Problem<float>(37, 3, 27, 10, 50));
    check_division_of_work(table, Problem<double>(300, 2, 40, 7, 33));
  });
}

TEST(separate_ops_agree_with_the_whole) {
  fixture::for_each_isa([](const KernelTable& table) {
    const Problem<double> p(50, 3, 27, 10, 33);
    const Kernels<double>& k = table.float64;
    std::vector<double> hidden(p.N * p.H), dhidden(p.N * p.H);
    Gradients<double> g(p);
    {
      const fixture::Scratch scratch(k.embed_linear_tanh_forward_workspace(p.hidden()));
      k.embed_linear_tanh_forward(p.hidden(), hidden.data(), scratch.get(), Serial());
    }
    {
      const LinearCrossEntropy<double> problem = p.output(hidden.data());
      const LinearCrossEntropyGradients<double> out{dhidden.data(), g.output_weight.data(),
                                                    g.output_bias.data()};
      const fixture::Scratch scratch(k.linear_cross_entropy_workspace(problem, true));
      k.linear_cross_entropy(problem, &g.loss, &out, scratch.get(), Serial());
    }
    {
      const EmbedLinearTanhGradients<double> out{g.embedding.data(), g.weight.data(),
                                                 g.bias.data()};
      const fixture::Scratch scratch(k.embed_linear_tanh_backward_workspace(p.hidden()));
      k.embed_linear_tanh_backward(p.hidden(), hidden.data(), dhidden.data(), out, scratch.get(),
                                   Serial());
    }
    const Gradients<double> whole = run_mlp(table, p, Serial());
    CHECK_NEAR(g.loss, whole.loss, 1e-14);
    for (size_t i = 0; i < g.embedding.size(); ++i)
      CHECK_NEAR(g.embedding[i], whole.embedding[i], 1e-14);
    for (size_t i = 0; i < g.weight.size(); ++i) CHECK_NEAR(g.weight[i], whole.weight[i], 1e-14);
    for (size_t i = 0; i < g.output_weight.size(); ++i) {
      CHECK_NEAR(g.output_weight[i], whole.output_weight[i], 1e-14);
    }
  });
}

TEST(an_unknown_instruction_set_is_refused) {
  const KernelTable* before = &active_kernels();
  CHECK(!force_isa("mmx"));
  CHECK_EQ(&active_kernels(), before);
}
