// The model as plain loops in float64: the definition of right for the kernel tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace naive {

template <class T>
struct Model {
  int64_t N, T_, V, E, H;
  const std::vector<int64_t>&tokens, &targets;
  const std::vector<T>&embedding, &weight, &bias, &output_weight, &output_bias, &direct;
  const std::vector<uint8_t>&input_kept, &hidden_kept;  // of dropout
  double p;                                             // 0: no dropout
};

struct Gradients {
  std::vector<double> embedding, weight, bias, output_weight, output_bias, direct;
  double loss = 0;
};

template <class T>
Gradients mlp_cross_entropy(const Model<T>& m) {
  const int64_t K = m.T_ * m.E;
  Gradients g{std::vector<double>(m.V * m.E), std::vector<double>(m.H * K),
              std::vector<double>(m.H),       std::vector<double>(m.V * m.H),
              std::vector<double>(m.V),       std::vector<double>(m.direct.size())};
  const bool direct = !m.direct.empty();
  const auto kept = [&m](const std::vector<uint8_t>& mask, int64_t i) {
    return m.p == 0 ? 1 : mask[i] / (1 - m.p);
  };
  for (int64_t n = 0; n < m.N; ++n) {
    std::vector<double> x(K), hidden(m.H), logits(m.V), dx(K), dhidden(m.H);
    for (int64_t k = 0; k < K; ++k) {
      x[k] = m.embedding[m.tokens[n * m.T_ + k / m.E] * m.E + k % m.E];
      x[k] *= kept(m.input_kept, n * K + k);
    }
    for (int64_t h = 0; h < m.H; ++h) {
      double sum = m.bias[h];
      for (int64_t k = 0; k < K; ++k) sum += double(m.weight[h * K + k]) * x[k];
      hidden[h] = std::tanh(sum);
    }
    double largest = -INFINITY, total = 0;
    for (int64_t v = 0; v < m.V; ++v) {
      logits[v] = m.output_bias[v];
      for (int64_t h = 0; h < m.H; ++h)
        logits[v] +=
            double(m.output_weight[v * m.H + h]) * hidden[h] * kept(m.hidden_kept, n * m.H + h);
      for (int64_t k = 0; direct && k < K; ++k) logits[v] += double(m.direct[v * K + k]) * x[k];
      largest = std::max(largest, logits[v]);
    }
    for (double z : logits) total += std::exp(z - largest);
    g.loss += (largest + std::log(total) - logits[m.targets[n]]) / double(m.N);
    for (int64_t v = 0; v < m.V; ++v) {
      const double p = std::exp(logits[v] - largest) / total;
      const double dlogit = (p - (v == m.targets[n] ? 1 : 0)) / double(m.N);
      g.output_bias[v] += dlogit;
      for (int64_t h = 0; h < m.H; ++h) {
        const double scale = kept(m.hidden_kept, n * m.H + h);
        g.output_weight[v * m.H + h] += dlogit * hidden[h] * scale;
        dhidden[h] += dlogit * m.output_weight[v * m.H + h] * scale;
      }
      for (int64_t k = 0; direct && k < K; ++k) {
        g.direct[v * K + k] += dlogit * x[k];
        dx[k] += dlogit * m.direct[v * K + k];
      }
    }
    for (int64_t h = 0; h < m.H; ++h) {
      const double dpre = dhidden[h] * (1 - hidden[h] * hidden[h]);
      g.bias[h] += dpre;
      for (int64_t k = 0; k < K; ++k) {
        g.weight[h * K + k] += dpre * x[k];
        dx[k] += dpre * m.weight[h * K + k];
      }
    }
    for (int64_t k = 0; k < K; ++k) {
      g.embedding[m.tokens[n * m.T_ + k / m.E] * m.E + k % m.E] +=
          dx[k] * kept(m.input_kept, n * K + k);
    }
  }
  if (m.N == 0) g.loss = NAN;
  return g;
}

}  // namespace naive
