// Training by clusters of blocks, against the engine of the CPU. Where a device has no clusters of
// a size, there is nothing to test; the first test says what each has to have.
#include "kernels/cuda/training_layout-inl.h"
#include "training_runs.h"

using namespace runs;

namespace {

template <class A, class Body>
void for_clusters(const Body& body) {
  for (int cluster = 2; cluster <= largest_present_cluster<A>(); cluster *= 2) {
    body(cluster);
  }
}

template <class A>
void follow_the_cpu(const Problem& p, double tolerance, std::initializer_list<int> clusters) {
  for (const int cluster : clusters) {
    if (cluster <= largest_present_cluster<A>()) follows_the_cpu<A>(p, tolerance, cluster);
  }
}

// That the device has by its age, not by what the library finds.
int expected_cluster() {
#if ON_DEVICE
  int device = 0, major = 0;
  device::check_error(cudaGetDevice(&device));
  device::check_error(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  if (major < 9) return 1;
#endif
  return cuda::most_cluster_size;
}

// H + 1 columns are seven fours: clusters of 2, 4 and 8 divide them unevenly.
constexpr TrainingSizes small{7, 2, 3, 26, 9};

}  // namespace

TEST(clusters_are_found_where_there_are_some) {
  CHECK_EQ(largest_present_cluster<float>(), expected_cluster());
  CHECK_EQ(largest_present_cluster<double>(), expected_cluster());
}

TEST(clusters_follow_the_cpu_for_a_few_hundred_steps) {
  follow_the_cpu<float>({small, 200, sgd()}, 1e-4, {2});
  follow_the_cpu<float>({small, 30, sgd()}, 5e-5, {4, 8});
}

TEST(clusters_of_all_sizes) {
  for (const TrainingSizes z : {TrainingSizes{1, 1, 1, 1, 1},
                                {27, 3, 4, 64, 32},  // whole fours, and the bias alone in one more
                                {3, 1, 2, 200, 5},   // sums in parts
                                {5, 4, 8, 5, 3},     // blocks without a hidden unit
                                {70, 2, 1, 31, 17},
                                {4, 9, 4, 28, 40}}) {
    follow_the_cpu<float>({z, 3, momentum()}, 2e-5, {2, 4, 8});
    follow_the_cpu<double>({z, 3, sgd(0.1)}, 1e-12, {4});
  }
}

TEST(clusters_train_by_every_rule) {
  int cluster = 2;
  for (const Optimizer& rule : {adamw(), sgd(0.1), momentum()}) {
    Problem p{small, 6, rule};
    p.rate = rule.rule.adamw ? 0.01 : 0.1;
    follow_the_cpu<float>(p, 5e-5, {cluster});
    p.done_before = 1000;
    p.norms = true;
    follow_the_cpu<float>(p, 5e-5, {cluster});
    p.optimizer = clipped(rule, 0.5);
    follow_the_cpu<float>(p, 5e-5, {cluster});
    cluster *= 2;
  }
}

TEST(clusters_leave_frozen_parameters_alone) {
  for (int frozen = 0; frozen < trained_arrays; ++frozen) {
    for (const bool norms : {false, true}) {
      Problem p{small, 3, adamw(), norms};
      p.rate = 0.01;
      p.frozen[frozen] = true;
      follow_the_cpu<float>(p, 2e-5, {norms ? 2 : 4});
    }
  }
}

TEST(clusters_with_less_shared_memory) {
  for_clusters<float>([&](int cluster) {
    Problem p{small, 5, clipped(adamw(), 0.5), true};
    const int64_t least = cuda_training<float>().least_shared_bytes(p.z, cluster);
    const Results got = trained<float>(p, p.steps, cluster);
    int outside = 0;
    for (const int64_t more : {0, 2000}) {
      CHECK(sides::same_bits(trained<float>(p, p.steps, cluster, least + more), got));
      OnDevice<float> model(p, least + more, cluster);
      int64_t bytes = 0;
      model.steps(0, 1, bytes);
      CHECK(bytes <= least + more);
      outside += model.all_in_shared() ? 0 : 1;
    }
    CHECK(outside >= 1);
  });
}

// Every block updates an embedding of its own: to the same bits.
TEST(blocks_of_a_cluster_agree) {
  for_clusters<float>([&](int cluster) {
    const Problem p{small, 20, momentum()};
    OnDevice<float> model(p, cuda_training<float>().least_shared_bytes(p.z, cluster), cluster);
    int64_t bytes = 0;
    const TrainingModel<float> steps = model.steps(0, p.steps, bytes);
    launch<float>({steps}, bytes, cluster);
    const int64_t size = cuda::TrainingLayout(p.z, cluster).parameters, count = p.z.V * p.z.E;
    const std::vector<float> first = model.workspace(steps.state, count);
    for (int rank = 1; rank < cluster; ++rank) {
      CHECK(sides::same_bits({numbers::values(model.workspace(steps.state + rank * size, count))},
                             {numbers::values(first)}));
    }
  });
}

// Sums over hidden units in 8, 16 and 32 parts; H of whole fours, and not; state that has no room
// in shared memory.
TEST(clusters_have_the_bits_of_one_block) {
  const Training<float>& training = cuda_training<float>();
  for (const int32_t H : {100, 129, 302, 400}) {
    for (const Optimizer& rule : {momentum(), clipped(adamw(), 0.5)}) {
      Problem p{{3, 1, 4, H, 5}, 3, rule, true};
      p.rate = 0.01;
      p.frozen[1] = H == 129;
      CHECK(training.most_blocks(p.z) >= 8);
      const Results one = trained<float>(p, p.steps);
      for_clusters<float>([&](int cluster) {
        CHECK(sides::same_bits(trained<float>(p, 2, cluster), one));
        const int64_t least = training.least_shared_bytes(p.z, cluster);
        if (H == 100) CHECK(sides::same_bits(trained<float>(p, p.steps, cluster, least), one));
      });
      if (H != 129) continue;
      const Results wide = trained<double>(p, p.steps);
      for_clusters<double>([&](int cluster) {
        CHECK(sides::same_bits(trained<double>(p, p.steps, cluster), wide));
      });
    }
  }
}

TEST(clusters_side_by_side) {
  for_clusters<float>([&](int cluster) {
    const std::vector<Problem> problems{{small, 6, sgd()},
                                        {{27, 3, 2, 40, 8}, 3, adamw()},
                                        {{5, 1, 1, 60, 20}, 6, clipped(momentum(), 0.1), true}};
    std::vector<std::unique_ptr<OnDevice<float>>> models;
    std::vector<TrainingModel<float>> together;
    int64_t bytes = 0;
    for (const Problem& p : problems) {
      models.emplace_back(new OnDevice<float>(p, most_shared_bytes(), cluster));
      together.push_back(models.back()->steps(0, p.steps, bytes));
    }
    together.insert(together.begin() + 1, TrainingModel<float>{});  // no steps
    launch(together, bytes, cluster);
    for (size_t i = 0; i < models.size(); ++i) {
      const Results alone = trained<float>(problems[i], problems[i].steps, cluster);
      CHECK(sides::same_bits(models[i]->results(), alone));
    }
  });
}

TEST(clusters_that_diverge_end_in_nan) {
  for_clusters<float>([&](int cluster) {
    Problem p{small, 12, sgd()};
    p.rate = 1e30;
    const Results got = trained<float>(p, p.steps, cluster);
    CHECK(std::isfinite(got[0].front()));
    CHECK(std::isnan(got[0].back()));
  });
}

TEST(clusters_on_ids_out_of_range_give_nan) {
  for_clusters<float>([&](int cluster) {
    for (const int64_t bad : {int64_t(-1), examples}) {
      Problem p{small, 4, sgd()};
      p.bad_index = bad;
      const Results got = trained<float>(p, p.steps, cluster);
      for (size_t k = 0; k < 4; ++k) CHECK_EQ(std::isnan(got[0][k]), k >= 2);
    }
  });
}

TEST(the_smallest_cluster_with_room_is_chosen) {
  const Training<float>& training = cuda_training<float>();
  constexpr TrainingSizes z{27, 3, 10, 1000, 32};
  int64_t least = 0;
  for (int cluster = 1; cluster <= largest_present_cluster<float>(); cluster *= 2) {
    const int64_t fewer = training.least_shared_bytes(z, cluster);
    if (cluster > 1) CHECK_EQ(smallest_cluster<float>(z, least - 1), cluster);
    CHECK_EQ(smallest_cluster<float>(z, fewer), cluster);
    least = fewer;
  }
  CHECK_EQ(smallest_cluster<float>(z, least - 1), 0);
  CHECK_EQ(smallest_cluster<float>({27, 3, 10, 0x7fffffff, 32}, most_shared_bytes()), 0);
}

#if !ON_DEVICE
TEST(a_device_without_clusters_has_none) {
  const Training<float>& training = cuda_training<float>();
  constexpr TrainingSizes z{27, 3, 10, 1000, 32};
  emulation::set_largest_cluster(1);
  CHECK_EQ(smallest_cluster<float>(z, training.least_shared_bytes(z, 8)), 0);
  CHECK_EQ(smallest_cluster<float>(z, training.least_shared_bytes(z, 1)), 1);
  emulation::set_largest_cluster(4);
  CHECK_EQ(smallest_cluster<float>(z, training.least_shared_bytes(z, 4)), 4);
  CHECK_EQ(smallest_cluster<float>(z, training.least_shared_bytes(z, 8)), 0);
  emulation::set_largest_cluster(8);
}

TEST(models_are_given_more_blocks_while_all_have_them_at_once) {
  constexpr TrainingSizes lecture{27, 3, 10, 200, 32}, narrow{27, 3, 10, 100, 32},
      small{27, 3, 10, 50, 32}, few{3, 1, 4, 300, 5}, large{27, 3, 10, 1000, 32};
  const auto widest = [](const TrainingSizes& z, size_t models) {
    return widest_cluster<float>(std::vector<TrainingSizes>(models, z), most_shared_bytes());
  };
  CHECK_EQ(widest(lecture, 1), 4);  // its sums are in four parts
  CHECK_EQ(widest(lecture, 33), 4);
  CHECK_EQ(widest(lecture, 34), 2);
  CHECK_EQ(widest(lecture, 67), 0);
  CHECK_EQ(widest(small, 1), 0);  // in one part
  CHECK_EQ(widest(few, 1), 0);    // in many, but too few examples to divide the work
  CHECK_EQ(widest(large, 16), 8);
  CHECK_EQ(widest(large, 17), 4);  // which are the fewest that have room
  CHECK_EQ(widest(large, 34), 0);
  CHECK_EQ(widest_cluster<float>({lecture, narrow}, most_shared_bytes()), 2);
  CHECK_EQ(widest_cluster<float>({lecture, small}, most_shared_bytes()), 0);  // one launch
  CHECK_EQ(widest({27, 3, 10, 0x7fffffff, 32}, 1), 0);
  emulation::set_largest_cluster(1);
  CHECK_EQ(widest(lecture, 1), 0);
  emulation::set_largest_cluster(8);
}
#endif
