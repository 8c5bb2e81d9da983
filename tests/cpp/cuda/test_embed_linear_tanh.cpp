// embed_linear_tanh on a device: every method against the CPU, in every storage type.
#include <algorithm>
#include <optional>
#include <sstream>

#include "kernels/cuda/embed_linear_tanh_backward-inl.h"
#include "sides.h"

namespace {

using namespace sides;
using cuda::HiddenMethod;
using numbers::tolerance;

struct Sizes {
  int64_t N, T, V, E, H;
};

template <class S>
struct Case {
  Sizes z;
  int variant;                         // type of ids, alignment, bias
  std::optional<HiddenMethod> method;  // or what the kernels choose
  std::vector<S> embedding, weight, bias, dhidden;
  std::vector<int64_t> tokens;

  Case(Sizes z, int variant, std::optional<HiddenMethod> method = std::nullopt)
      : z(z), variant(variant), method(method) {
    std::mt19937 random(unsigned(z.N + 100 * z.V + 10000 * z.H));
    embedding = numbers::normals<S>(random, z.V * z.E);
    weight = numbers::normals<S>(random, z.H * z.T * z.E, 0.3f);
    bias = numbers::normals<S>(random, z.H);
    dhidden = numbers::normals<S>(random, z.N * z.H);
    tokens = numbers::ids(random, z.N * z.T, z.V);
  }

  std::string name() const {
    std::ostringstream text;
    text << "embed_linear_tanh N=" << z.N << " T=" << z.T << " V=" << z.V << " E=" << z.E
         << " H=" << z.H << " variant=" << variant << " method=" << (method ? int(*method) : -1)
         << " bytes=" << sizeof(S);
    return text.str();
  }

  template <class Side>
  Results operator()(const Side& side) const {
    using Array = typename Side::template Array<S>;
    const int64_t offset = variant % 4;
    const Array c(embedding, offset), w(weight, offset), dy(dhidden, offset);
    const Optional<Side, S> b(bias, variant % 3 != 2, offset);
    const IdArray<Side> ids(tokens, variant % 2 == 0);
    const Array y(z.N * z.H, offset), dc(z.V * z.E, offset), dw(z.H * z.T * z.E), db(z.H);
    const EmbedLinearTanh<S> p{z.N, z.T, z.V, z.E, z.H, ids.ids(), c.data(), w.data(), b.data()};
    const EmbedLinearTanhGradients<S> d{dc.data(), dw.data(), b.data() ? db.data() : nullptr};
    forward(side, p, y.data());
    side.finish();
    backward(side, p, y.data(), dy.data(), d);
    side.finish();
    Results results{numbers::values(y.values()), numbers::values(dc.values()),
                    numbers::values(dw.values())};
    if (d.bias) results.push_back(numbers::values(db.values()));
    return results;
  }

 private:
  template <class Side>
  void forward(const Side& side, const EmbedLinearTanh<S>& p, S* hidden) const {
    if constexpr (Side::is_device) {
      if (method) {
        using Kernel = cuda::EmbedLinearTanhForward<S>;
        const Scratch<Side> scratch(int64_t(cuda::measure<Kernel>(p, *method)));
        cuda::make<Kernel>(scratch.data(), p, *method).run(hidden, side.executor());
        return side.finish();
      }
    }
    const auto& k = Side::template kernels<S>();
    const Scratch<Side> scratch(int64_t(k.embed_linear_tanh_forward_workspace(p)));
    k.embed_linear_tanh_forward(p, hidden, scratch.data(), side.executor());
    side.finish();
  }

  template <class Side>
  void backward(const Side& side, const EmbedLinearTanh<S>& p, const S* hidden, const S* dhidden,
                const EmbedLinearTanhGradients<S>& d) const {
    if constexpr (Side::is_device) {
      if (method) {
        using Kernel = cuda::EmbedLinearTanhBackward<S>;
        const Scratch<Side> scratch(int64_t(cuda::measure<Kernel>(p, *method)));
        cuda::make<Kernel>(scratch.data(), p, *method)
            .run(hidden, dhidden, d, nullptr, side.executor());
        return side.finish();
      }
    }
    const auto& k = Side::template kernels<S>();
    const Scratch<Side> scratch(int64_t(k.embed_linear_tanh_backward_workspace(p)));
    k.embed_linear_tanh_backward(p, hidden, dhidden, d, scratch.data(), side.executor());
    side.finish();
  }
};

template <class S>
void agrees(const Case<S>& problem) {
  agree(10 * tolerance<S>, problem.name(), problem);
}

constexpr HiddenMethod methods[] = {HiddenMethod::direct, HiddenMethod::tables,
                                    HiddenMethod::library};

template <class S>
void check_sizes() {
  for (int64_t width = 1; width <= 33; ++width) {
    agrees(Case<S>({9, 3, width, 5, 34 - width}, int(width), methods[width % 3]));
  }
  for (const HiddenMethod method : methods) {
    agrees(Case<S>({1, 1, 1, 1, 1}, 0, method));
    agrees(Case<S>({0, 3, 5, 2, 4}, 1, method));
    agrees(Case<S>({6, 3, 5, 2, 0}, 2, method));
    agrees(Case<S>({150, 2, 17, 33, 40}, 2, method));
    agrees(Case<S>({7, 33, 3, 2, 9}, 3, method));
  }
}

}  // namespace

TEST(embed_linear_tanh_in_float32) { check_sizes<float>(); }
TEST(embed_linear_tanh_in_float64) { check_sizes<double>(); }
TEST(embed_linear_tanh_in_bfloat16) { check_sizes<bfloat16>(); }
TEST(embed_linear_tanh_in_float16) { check_sizes<float16>(); }

TEST(embed_linear_tanh_chooses_by_sizes) {
  agrees(Case<float>({32, 3, 27, 10, 200}, 0));
  agrees(Case<float>({40, 2, 300, 140, 70}, 1));
  agrees(Case<double>({70, 4, 200, 3, 33}, 2));
  agrees(Case<float>({6, 3, 5, 0, 4}, 0));
}

TEST(embed_linear_tanh_of_sizes_that_take_more_than_one_round) {
  // A warp's columns, and the library's rows.
  for (const HiddenMethod method : methods) agrees(Case<float>({9, 2, 5, 3, 301}, 1, method));
  agrees(Case<float>({8200, 2, 40, 2, 3}, 0, HiddenMethod::library));
}

TEST(embed_linear_tanh_leaves_what_no_grid_holds_to_other_methods) {
  const auto problem = [](int64_t N, int64_t T, int64_t H) {
    return EmbedLinearTanh<float>{N, T, 1, 1, H, {}};
  };
  CHECK(cuda::hidden_method(problem(4096, 65535, 1)) == HiddenMethod::tables);
  CHECK(cuda::hidden_method(problem(1024, 65536, 1)) == HiddenMethod::direct);
}

TEST(embed_linear_tanh_of_frequent_and_rare_tokens) {
  for (const HiddenMethod method : {HiddenMethod::direct, HiddenMethod::library}) {
    Case<float> problem({700, 3, 90, 4, 6}, 0, method);
    for (size_t i = 0; i < problem.tokens.size(); ++i) {
      if (i % 5 != 0) problem.tokens[i] = 7;
    }
    agrees(problem);
  }
}

TEST(embed_linear_tanh_of_a_token_out_of_range_is_nan) {
  for (const HiddenMethod method : methods) {
    for (const int64_t bad : {int64_t(27), int64_t(-1), int64_t(1) << 40}) {
      Case<float> problem({40, 3, 27, 4, 8}, 0, method);
      const Results right = problem(Device());
      problem.tokens[4 * 3 + 1] = bad;
      const Results got = problem(Device());
      for (int64_t i = 0; i < 40 * 8; ++i) {
        const bool is_bad = i / 8 == 4;
        CHECK_EQ(std::isnan(got[0][i]), is_bad);
        if (!is_bad) CHECK_EQ(got[0][i], right[0][i]);
      }
      CHECK(std::isnan(got[3][0]));  // dbias
    }
  }
}

TEST(embed_linear_tanh_of_embeddings_that_are_not_finite) {
  for (const HiddenMethod method : methods) {
    Case<float> problem({40, 3, 27, 4, 8}, 0, method);
    for (int64_t& id : problem.tokens) id = id < 5 ? 5 : id;
    problem.embedding[1 * 4 + 2] = numbers::infinity;  // of a token that no example has
    problem.embedding[2 * 4] = NAN;
    agrees(problem);
    problem.tokens[7] = 1;
    // Its hidden units are 1 or -1, so that its gradients are -0: it occurs all the same.
    for (int i = 0; i < 8; ++i) problem.dhidden[size_t(7 / 3 * 8 + i)] = -1;
    const Results got = problem(Device());
    CHECK(std::any_of(got[2].begin(), got[2].end(), [](double x) { return std::isnan(x); }));
  }
}

TEST(embed_linear_tanh_of_a_small_batch_is_one_launch) {
#if !ON_DEVICE
  emulation::take_launches();
  const Results results = Case<float>({32, 3, 27, 10, 40}, 0)(Device());
  const std::vector<std::string> launches = emulation::take_launches();
  CHECK_EQ(launches.size(), size_t(3));  // and the backward's two
  CHECK(launches[0].find("HiddenProduct") != std::string::npos);
#endif
}
