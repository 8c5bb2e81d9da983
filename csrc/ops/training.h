// Training steps in place, for backends that run CUDA kernels: check -> allocate -> call.
//
// Lists of parameters have those of each model one after the other, in the order of its state_dict,
// and so have the lists of their state, which hold empty tensors where there is none.
#pragma once

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "kernels/cuda/training.h"
#include "ops/checks.h"

namespace pymlp {

using Tensors = std::vector<Tensor>;

// embedding, hidden weight and bias, output weight and bias, weight of the direct connections.
constexpr size_t most_parameters = 6;

// The settings of a model as one row of numbers: adamw, momentum, weight_decay, beta1, beta2, eps,
// max_grad_norm (0: none), decay_biases, and for each of its parameters whether it is trained. A
// model has the parameters of the training kernel, or direct connections as well.
struct TrainingSettings {
  static constexpr size_t count(size_t parameters) { return 8 + parameters; }
  OptimizerStep rule;
  double max_grad_norm;
  size_t parameters;
  bool trained[most_parameters];

  TrainingSettings(const char* op, const double* s, size_t size) {
    check(size == count(trained_arrays) || size == count(most_parameters), "pymlp.", op,
          ": the number of settings must be ", count(trained_arrays), " or ",
          count(most_parameters), ", got ", size);
    rule.adamw = s[0] != 0;
    rule.momentum = s[1];
    rule.weight_decay = s[2];
    rule.beta1 = s[3];
    rule.beta2 = s[4];
    rule.eps = s[5];
    max_grad_norm = s[6];
    rule.decay_biases = s[7] != 0;
    parameters = size - count(0);
    for (size_t i = 0; i < parameters; ++i) trained[i] = s[count(i)] != 0;
  }
  int states() const { return rule.adamw ? 2 : rule.momentum != 0 ? 1 : 0; }
};

inline void check_count(const char* op, const char* what, size_t got, size_t expected) {
  check(got == expected, "pymlp.", op, ": ", what, " must be ", expected, ", got ", got);
}

// Checks a tensor that is read or written in place.
inline void check_in_place(const Argument& a) {
  check(a.tensor.is_contiguous(), "pymlp.", a.op, ": ", a.name, " must be contiguous");
}

// The parameters of one model of a list, with their state.
class TrainedTensors {
 public:
  TrainedTensors(const char* op, size_t model, const Tensors& parameters, const Tensors& first,
                 const Tensors& second, const TrainingSettings& settings)
      : parameters_(&parameters[model * settings.parameters]),
        first_(&first[model * settings.parameters]),
        second_(&second[model * settings.parameters]),
        states_(settings.states()) {
    const Tensor& embedding = parameters_[0];
    check_dim({op, "embedding", embedding}, 2);
    check_dim({op, "hidden_weight", parameters_[1]}, 2);
    const int64_t V = embedding.size(0), H = parameters_[1].size(0), K = parameters_[1].size(1);
    const bool direct = settings.parameters == most_parameters;
    check(V > 0 && (H > 0 || direct) && embedding.size(1) > 0 && K % embedding.size(1) == 0,
          "pymlp.", op, ": sizes must be positive, and hidden_weight as wide as whole embeddings");
    const std::initializer_list<int64_t> shapes[] = {
        {V, embedding.size(1)}, {H, K}, {H}, {V, H}, {V}, {V, K}};
    for (size_t i = 0; i < settings.parameters; ++i) {
      const Argument parameter{op, names[i], parameters_[i]};
      check_like(parameter, {op, "embedding", embedding});
      check_shape(parameter, shapes[i]);
      check_in_place(parameter);
      check_state(op, "first", first_[i], embedding, states_ > 0 ? parameters_[i].numel() : 0);
      check_state(op, "second", second_[i], embedding, states_ > 1 ? parameters_[i].numel() : 0);
    }
  }

  int64_t V() const { return parameters_[0].size(0); }
  int64_t E() const { return parameters_[0].size(1); }
  int64_t H() const { return parameters_[1].size(0); }
  int64_t T() const { return parameters_[1].size(1) / E(); }
  const Tensor& embedding() const { return parameters_[0]; }
  template <class A>
  A* parameter(size_t i) const {
    return mutable_data<A>(parameters_[i]);
  }
  template <class A>
  A* first(size_t i) const {
    return states_ > 0 ? mutable_data<A>(first_[i]) : nullptr;
  }
  template <class A>
  A* second(size_t i) const {
    return states_ > 1 ? mutable_data<A>(second_[i]) : nullptr;
  }

  static constexpr const char* names[] = {"embedding",     "hidden_weight", "hidden_bias",
                                          "output_weight", "output_bias",   "direct_weight"};

 private:
  static void check_state(const char* op, const char* name, const Tensor& state,
                          const Tensor& embedding, int64_t size) {
    const Argument a{op, name, state};
    check_like(a, {op, "embedding", embedding});
    check(state.numel() == size, "pymlp.", op, ": a tensor of ", name, " must have ", size,
          " elements, got ", state.numel());
    check_in_place(a);
  }

  const Tensor *parameters_, *first_, *second_;
  int states_;
};

// body(A{}) for the types that models are trained in.
template <class Body>
void with_trained_type(const char* op, const Tensor& embedding, const Body& body) {
  if (embedding.scalar_type() == ScalarType::Float) return body(float{});
  check(embedding.scalar_type() == ScalarType::Double, "pymlp.", op,
        ": embedding must be float32 or float64");
  body(double{});
}

// A vector of `size` numbers on the device that is read or written in place.
inline void check_vector(const Argument& a, const Argument& like, ScalarType dtype, int64_t size) {
  check(a.tensor.scalar_type() == dtype, "pymlp.", a.op, ": ", a.name, " has another dtype");
  check_device(a, like);
  check_shape(a, {size});
  check_in_place(a);
}

// Bytes of shared memory that a model needs for train_models, and that a block may have.
template <class Backend>
std::tuple<int64_t, int64_t> training_shared_bytes(const Tensor& like, int64_t V, int64_t T,
                                                   int64_t E, int64_t H, int64_t B) {
  constexpr const char* op = "training_shared_bytes";
  const Backend backend(op, like.device());
  int64_t least = 0;
  with_trained_type(op, like, [&](auto tag) {
    const auto narrow = [](int64_t n) { return int32_t(n < 0x7fffffff ? n : 0x7fffffff); };
    least = cuda_training<decltype(tag)>().least_shared_bytes(
        {narrow(V), narrow(T), narrow(E), narrow(H), narrow(B)});
  });
  return {least, most_shared_bytes()};
}

// Arguments of train_models. Of each model: indices (K, B) of examples, rates (K) float64, losses
// and grad_norms (K) float64, the latter or empty, done (1) int64: updates so far, counted on.
struct RunsOfSteps {
  static constexpr const char* op = "train_models";
  const Tensors &parameters, &first, &second;
  const Tensor &tokens, &targets;
  const Tensors &indices, &rates, &losses, &grad_norms, &done;
  const std::vector<double>& settings;

  size_t count() const { return indices.size(); }
  Argument like() const { return {op, "embedding", parameters[0]}; }

  void check_all() const {
    check(count() > 0, "pymlp.", op, ": there is no model");
    for (const Tensors* list : {&parameters, &first, &second}) {
      check_count(op, "the number of parameters and states", list->size(),
                  count() * trained_arrays);
    }
    for (const Tensors* list : {&rates, &losses, &grad_norms, &done}) {
      check_count(op, "the number of rates, losses, grad_norms and done", list->size(), count());
    }
    check_count(op, "the number of settings", settings.size(),
                count() * TrainingSettings::count(trained_arrays));
    check_dim({op, "tokens", tokens}, 2);
    check_shape({op, "targets", targets}, {tokens.size(0)});
    check_ids_in_place("tokens", tokens);
    check_ids_in_place("targets", targets);
  }

  template <class A>
  TrainingModel<A> model(size_t i) const {
    constexpr size_t row = TrainingSettings::count(trained_arrays);
    const TrainingSettings s(op, &settings[i * row], row);
    check(s.rule.decay_biases || s.rule.weight_decay == 0, "pymlp.", op,
          ": biases cannot be spared the weight decay");
    const TrainedTensors trained(op, i, parameters, first, second, s);
    check_like({op, "embedding", trained.embedding()}, like());
    check_dim({op, "indices", indices[i]}, 2);
    check_ids_in_place("indices", indices[i]);
    const int64_t K = indices[i].size(0), B = indices[i].size(1), T = trained.T();
    check(T == tokens.size(1), "pymlp.", op, ": hidden_weight is for contexts of ", T,
          " tokens, got ", tokens.size(1));
    // Steps and places of a batch are counted together in 31 bits.
    check(B > 0 && (K + 1) * B * T <= 0x7fffffff, "pymlp.", op, ": too many steps at once, ", K);
    check_vector({op, "rates", rates[i]}, like(), ScalarType::Double, K);
    check_vector({op, "losses", losses[i]}, like(), ScalarType::Double, K);
    check_vector({op, "done", done[i]}, like(), ScalarType::Long, 1);
    const bool norms = grad_norms[i].numel() > 0;
    if (norms) check_vector({op, "grad_norms", grad_norms[i]}, like(), ScalarType::Double, K);
    TrainingModel<A> m{};
    m.sizes = {int32_t(trained.V()), int32_t(T), int32_t(trained.E()), int32_t(trained.H()),
               int32_t(B)};
    for (size_t p = 0; p < trained_arrays; ++p) {
      m.parameters[p] = trained.template parameter<A>(p);
      m.first[p] = trained.template first<A>(p);
      m.second[p] = trained.template second<A>(p);
      m.trained[p] = s.trained[p];
    }
    m.rule = s.rule;
    m.max_grad_norm = s.max_grad_norm;
    m.N = tokens.size(0);
    m.tokens = ids(tokens);
    m.targets = ids(targets);
    m.indices = ids(indices[i]);
    m.steps = K;
    m.done = m.done_after = mutable_data<int64_t>(done[i]);
    m.rates = data<double>(rates[i]);
    m.losses = mutable_data<double>(losses[i]);
    m.grad_norms = norms ? mutable_data<double>(grad_norms[i]) : nullptr;
    return m;
  }

 private:
  void check_ids_in_place(const char* name, const Tensor& tensor) const {
    const Argument a{op, name, tensor};
    check_integer(a);
    check_device(a, like());
    check_in_place(a);
  }
};

// The models on the device, where the kernel reads them. Waits until they are there.
template <class A>
Tensor copied_to(const Device& device, const std::vector<TrainingModel<A>>& models) {
  const auto bytes = static_cast<int64_t>(models.size() * sizeof(models[0]));
  const Tensor here = empty({bytes}, ScalarType::Byte, Device(torch::headeronly::DeviceType::CPU));
  std::memcpy(here.mutable_data_ptr(), models.data(), static_cast<size_t>(bytes));
  return torch::stable::to(here, device);
}

template <class A, class Backend>
void train(const Backend& backend, const RunsOfSteps& runs) {
  const Training<A>& training = cuda_training<A>();
  const int64_t room = most_shared_bytes();
  std::vector<TrainingModel<A>> models;
  size_t workspace = 0;
  for (size_t i = 0; i < runs.count(); ++i) {
    models.push_back(runs.model<A>(i));
    const int64_t least = training.least_shared_bytes(models.back().sizes);
    check(least <= room, "pymlp.", runs.op, ": model ", i, " needs ", least,
          " bytes of shared memory, a block has ", room);
    workspace += training.workspace(models.back(), room);
  }
  const auto launch = [&](void* memory, const Queue& queue) {
    int64_t shared_bytes = 0;
    auto* at = static_cast<char*>(memory);
    for (TrainingModel<A>& model : models) {
      const size_t bytes = training.workspace(model, room);
      shared_bytes = std::max(shared_bytes, training.place(model, room, at));
      at += bytes;
    }
    const Tensor table = copied_to(runs.parameters[0].device(), models);
    training.train(static_cast<const TrainingModel<A>*>(table.const_data_ptr()),
                   static_cast<int64_t>(models.size()), shared_bytes, queue);
  };
  backend.run(launch, workspace);
}

template <class Backend>
void train_models(const Tensors& parameters, const Tensors& first, const Tensors& second,
                  const Tensor& tokens, const Tensor& targets, const Tensors& indices,
                  const Tensors& rates, const Tensors& losses, const Tensors& grad_norms,
                  const Tensors& done, const std::vector<double>& settings) {
  const RunsOfSteps runs{parameters, first,  second,     tokens, targets, indices,
                         rates,      losses, grad_norms, done,   settings};
  runs.check_all();
  const Backend backend(runs.op, parameters[0].device());
  with_trained_type(runs.op, parameters[0], [&](auto tag) { train<decltype(tag)>(backend, runs); });
}

// (K, 3) in the dtype of `like`: what the updates after `done` (1) at learning rates lr (K) need.
template <class Backend>
Tensor training_rates(const Tensor& lr, const Tensor& done, const Tensor& like,
                      const std::vector<double>& settings) {
  constexpr const char* op = "training_rates";
  const Argument place{op, "like", like};
  const TrainingSettings s(op, settings.data(), settings.size());
  check_dim({op, "lr", lr}, 1);
  check_vector({op, "lr", lr}, place, ScalarType::Double, lr.size(0));
  check_vector({op, "done", done}, place, ScalarType::Long, 1);
  const Backend backend(op, like.device());
  const Tensor out = empty({lr.size(0), 3}, like.scalar_type(), like.device());
  with_trained_type(op, like, [&](auto tag) {
    using A = decltype(tag);
    static_assert(sizeof(StepRates<A>) == 3 * sizeof(A), "a row");
    const auto launch = [&](void*, const Queue& queue) {
      cuda_training<A>().rates(lr.size(0), data<double>(lr), data<int64_t>(done), s.rule,
                               reinterpret_cast<StepRates<A>*>(mutable_data<A>(out)), queue);
    };
    backend.run(launch, 0);
  });
  return out;
}

// The end of a step, number (1) of those of `rates` and `losses`: the update by its gradients,
// which are first multiplied with factor (1). Notes its loss () among the losses (K) float64, and
// counts it: number is one more afterwards. Gradients of what is frozen are not read.
template <class Backend>
void mlp_update(const Tensors& parameters, const Tensors& gradients, const Tensors& first,
                const Tensors& second, const Tensor& rates, const Tensor& number,
                const std::optional<Tensor>& factor, const Tensor& loss, const Tensor& losses,
                const std::vector<double>& settings) {
  constexpr const char* op = "mlp_update";
  const TrainingSettings s(op, settings.data(), settings.size());
  for (const Tensors* list : {&parameters, &gradients, &first, &second}) {
    check_count(op, "the number of parameters, gradients and states", list->size(), s.parameters);
  }
  const TrainedTensors trained(op, 0, parameters, first, second, s);
  const Argument like{op, "embedding", parameters[0]};
  for (size_t i = 0; i < s.parameters; ++i) {
    if (!s.trained[i]) continue;
    const Argument gradient{op, "a gradient", gradients[i]};
    check_like(gradient, like);
    check_in_place(gradient);
    check(gradients[i].numel() == parameters[i].numel(), "pymlp.", op,
          ": a gradient must have the size of its parameter");
  }
  check_shape({op, "rates", rates}, {rates.size(0), 3});
  check_like({op, "rates", rates}, like);
  check_in_place({op, "rates", rates});
  check_vector({op, "number", number}, like, ScalarType::Long, 1);
  if (factor) check_vector({op, "factor", *factor}, like, parameters[0].scalar_type(), 1);
  check_shape({op, "loss", loss}, {});
  check_like({op, "loss", loss}, like);
  check_vector({op, "losses", losses}, like, ScalarType::Double, rates.size(0));
  const Backend backend(op, parameters[0].device());
  with_trained_type(op, parameters[0], [&](auto tag) {
    using A = decltype(tag);
    const auto updated = [&](size_t i) {
      if (!s.trained[i]) return UpdatedParameter<A>{};
      return UpdatedParameter<A>{data<A>(gradients[i]), trained.template parameter<A>(i),
                                 trained.template first<A>(i), trained.template second<A>(i)};
    };
    MlpUpdate<A> problem{};
    problem.T = trained.T();
    problem.V = trained.V();
    problem.E = trained.E();
    problem.H = trained.H();
    problem.embedding = updated(0);
    problem.hidden_weight = updated(1);
    problem.hidden_bias = updated(2);
    problem.output_weight = updated(3);
    problem.output_bias = updated(4);
    if (s.parameters == most_parameters) problem.direct = updated(5);
    problem.step = s.rule;
    const DeviceStep<A> step{rates.size(0),
                             mutable_data<int64_t>(number),
                             reinterpret_cast<const StepRates<A>*>(data<A>(rates)),
                             data<A>(factor),
                             data<A>(loss),
                             mutable_data<double>(losses)};
    const auto launch = [&](void*, const Queue& queue) {
      cuda_training<A>().update(problem, step, queue);
    };
    backend.run(launch, 0);
  });
}

}  // namespace pymlp
