// A random model and batch, all gradients of its loss by a kernel, and how they are compared with
// the plain loops of naive_mlp.h.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels_fixture.h"
#include "naive_mlp.h"

namespace fixture {

using pymlp::EmbedLinearTanh;
using pymlp::KernelTable;
using pymlp::LinearCrossEntropy;
using pymlp::MlpCrossEntropy;
using pymlp::MlpCrossEntropyGradients;
using pymlp::Parallel;
using pymlp::Serial;

// A model and a batch of storage type T, random but for its sizes.
template <class T>
struct Problem {
  int64_t N, T_, V, E, H;
  std::vector<int64_t> tokens, targets;
  std::vector<T> embedding, weight, bias, output_weight, output_bias, direct;
  std::vector<uint8_t> input_kept, hidden_kept;
  double p = 0;  // of dropout

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

  // Direct connections, or dropout with probability p > 0.
  Problem with(bool connects, double dropout) const {
    Problem other = *this;
    std::mt19937 random(17);
    std::normal_distribution<double> normal(0, 0.3);
    other.p = dropout;
    other.direct.resize(connects ? V * T_ * E : 0);
    for (T& x : other.direct) x = T(normal(random));
    for (auto* mask : {&other.input_kept, &other.hidden_kept}) {
      mask->resize(N * (mask == &other.input_kept ? T_ * E : H));
      for (uint8_t& kept : *mask) kept = random() % 100 >= 100 * dropout;
    }
    return other;
  }

  MlpCrossEntropy<T> problem() const {
    MlpCrossEntropy<T> problem{hidden(), output(nullptr)};
    if (!direct.empty()) problem.direct = direct.data();
    if (p > 0) problem.dropout = {input_kept.data(), hidden_kept.data(), p};
    return problem;
  }
  EmbedLinearTanh<T> hidden() const {
    return {N, T_, V, E, H, {tokens.data(), true}, embedding.data(), weight.data(), bias.data()};
  }
  LinearCrossEntropy<T> output(const T* input) const {
    return {N,  H,      V, input, output_weight.data(), output_bias.data(), {targets.data(), true},
            {}, nullptr};
  }
  naive::Model<T> naive_model() const {
    return {N,
            T_,
            V,
            E,
            H,
            tokens,
            targets,
            embedding,
            weight,
            bias,
            output_weight,
            output_bias,
            direct,
            input_kept,
            hidden_kept,
            p};
  }
};

// All outputs of mlp_cross_entropy in one array each.
template <class T>
struct Gradients {
  std::vector<T> embedding, weight, bias, output_weight, output_bias, direct;
  T loss = 0;

  explicit Gradients(const Problem<T>& p)
      : embedding(p.V * p.E),
        weight(p.H * p.T_ * p.E),
        bias(p.H),
        output_weight(p.V * p.H),
        output_bias(p.V),
        direct(p.direct.size()) {}
};

template <class T>
Gradients<T> run_mlp(const KernelTable& table, const Problem<T>& p, const Parallel& parallel) {
  const MlpCrossEntropy<T> problem = p.problem();
  Gradients<T> g(p);
  const MlpCrossEntropyGradients<T> out{{g.embedding.data(), g.weight.data(), g.bias.data()},
                                        {nullptr, g.output_weight.data(), g.output_bias.data()},
                                        g.direct.data()};
  const Scratch scratch(table.of<T>().mlp_cross_entropy_workspace(problem, true));
  table.of<T>().mlp_cross_entropy(problem, &g.loss, &out, scratch.get(), parallel);
  return g;
}

template <class T>
void check_close(const std::vector<T>& got, const std::vector<double>& truth, double tolerance,
                 const char* what) {
  double largest = 1e-2;
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
  check_close(got.direct, truth.direct, tolerance, "ddirect");
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) return false;
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
void check_division_of_work(const KernelTable& table, const Problem<T>& p) {
  const Gradients<T> serial = run_mlp(table, p, Serial());
  const Gradients<T> divided = run_mlp(table, p, ManyTasks(3));
  CHECK_EQ(serial.loss, divided.loss);
  CHECK(same_bits(serial.embedding, divided.embedding));
  CHECK(same_bits(serial.weight, divided.weight));
  CHECK(same_bits(serial.bias, divided.bias));
  CHECK(same_bits(serial.output_weight, divided.output_weight));
  CHECK(same_bits(serial.output_bias, divided.output_bias));
  CHECK(same_bits(serial.direct, divided.direct));
}

}  // namespace fixture
