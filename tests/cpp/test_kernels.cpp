// Every kernel, with every instruction set, against the plain loops of naive_mlp.h in float64: odd
// sizes around the vector widths, and the same bits however the work is divided.
#include <string>

#include "mlp_problem.h"

using namespace pymlp;
using namespace fixture;

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

// Words: the vocabulary divided among threads, in one chunk of rows and in several.
TEST(mlp_cross_entropy_with_a_large_vocabulary) {
  fixture::for_each_isa([](const KernelTable& table) {
    check_against_naive(table, Problem<float>(5, 2, 1025, 3, 7), 1e-4);
    check_against_naive(table, Problem<float>(70, 3, 2111, 10, 20), 1e-4);
    check_against_naive(table, Problem<double>(33, 2, 1300, 5, 9), 1e-12);
    check_against_naive(table, Problem<double>(150, 1, 40000, 2, 3), 1e-12);
  });
}

TEST(direct_connections_and_dropout) {
  fixture::for_each_isa([](const KernelTable& table) {
    const Problem<float> small(60, 3, 27, 10, 20);
    check_against_naive(table, small.with(true, 0), 1e-4);
    check_against_naive(table, small.with(false, 0.25), 1e-4);
    check_against_naive(table, Problem<double>(1100, 2, 30, 5, 6).with(true, 0.5), 1e-12);
    check_against_naive(table, Problem<double>(20, 2, 30, 5, 0).with(true, 0), 1e-12);
    check_against_naive(table, Problem<double>(20, 2, 30, 5, 0).with(true, 0.3), 1e-12);
    check_against_naive(table, Problem<float>(0, 2, 30, 5, 4).with(true, 0), 1e-12);
  });
}

TEST(results_do_not_depend_on_the_division_of_work) {
  fixture::for_each_isa([](const KernelTable& table) {
    check_division_of_work(table, Problem<float>(37, 3, 27, 10, 50));
    check_division_of_work(table, Problem<double>(300, 2, 40, 7, 33));
    check_division_of_work(table, Problem<float>(100, 2, 1100, 7, 33));
    check_division_of_work(table, Problem<float>(1100, 2, 300, 7, 5).with(true, 0.5));
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
