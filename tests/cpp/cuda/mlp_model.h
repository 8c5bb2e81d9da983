// A whole model on a side, its loss and its gradients. Variants: 0 mean, 1 sum, 2 label smoothing,
// 3 no biases, 4 the z-loss; with ids of either type, and arrays at any address.
#pragma once

#include <sstream>

#include "kernels/cuda/mlp_cross_entropy-inl.h"
#include "sides.h"

namespace models {

using namespace sides;

struct Sizes {
  int64_t N, T, V, E, H;
};

template <class S>
struct Model {
  Sizes z;
  int variant;
  bool factor = false;  // leave the common factor out of the gradients
  float grad_output = 1;
  int64_t ignore_index = -100;
  std::vector<S> embedding, weight, bias, output_weight, output_bias;
  std::vector<int64_t> tokens, targets;

  Model(Sizes z, int variant) : z(z), variant(variant) {
    std::mt19937 random(unsigned(z.N + 100 * z.V + 10000 * z.H + variant));
    embedding = numbers::normals<S>(random, z.V * z.E);
    weight = numbers::normals<S>(random, z.H * z.T * z.E, 0.3f);
    bias = numbers::normals<S>(random, z.H);
    output_weight = numbers::normals<S>(random, z.V * z.H, 0.3f);
    output_bias = numbers::normals<S>(random, z.V);
    tokens = numbers::ids(random, z.N * z.T, z.V);
    targets = numbers::ids(random, z.N, z.V);
  }

  std::string name() const {
    std::ostringstream text;
    text << "mlp N=" << z.N << " T=" << z.T << " V=" << z.V << " E=" << z.E << " H=" << z.H
         << " variant=" << variant << " bytes=" << sizeof(S);
    return text.str();
  }
};

template <class S>
struct LossAndGradients : Model<S> {
  using Model<S>::Model;

  template <class Side>
  Results operator()(const Side& side) const {
    using A = Accumulate<S>;
    using Array = typename Side::template Array<S>;
    const Sizes& z = this->z;
    const int64_t offset = this->variant % 4;
    const Array c(this->embedding, offset), w(this->weight), b(this->bias, offset),
        ow(this->output_weight, offset), ob(this->output_bias);
    const Array dc(z.V * z.E), dw(z.H * z.T * z.E), db(z.H), dow(z.V * z.H, offset), dob(z.V);
    const bool biases = this->variant != 3;
    const typename Side::template Array<A> grad(std::vector<A>{A(this->grad_output)});
    const IdArray<Side> x(this->tokens, this->variant % 2 == 0),
        y(this->targets, this->variant % 3 != 1);
    const typename Side::template Array<A> loss(1), factor(1);
    MlpCrossEntropy<S> p{
        {z.N, z.T, z.V, z.E, z.H, x.ids(), c.data(), w.data(), biases ? b.data() : nullptr},
        {z.N, z.H, z.V, nullptr, ow.data(), biases ? ob.data() : nullptr, y.ids(), {}, nullptr}};
    if (this->grad_output != 1) p.output.grad_output = grad.data();
    p.output.options.ignore_index = this->ignore_index;
    if (this->variant % 3 == 1) p.output.options.reduction = Reduction::sum;
    if (this->variant % 3 == 2) p.output.options.label_smoothing = 0.1;
    if (this->variant == 4) p.output.options.z_loss = 0.01;
    const MlpCrossEntropyGradients<S> d{{dc.data(), dw.data(), biases ? db.data() : nullptr},
                                        {nullptr, dow.data(), biases ? dob.data() : nullptr},
                                        nullptr,
                                        this->factor ? factor.data() : nullptr};
    compute(side, p, loss.data(), d);
    Results results{numbers::values(loss.values()), numbers::values(dc.values()),
                    numbers::values(dw.values()), numbers::values(dow.values())};
    if (biases) results.push_back(numbers::values(db.values()));
    if (biases) results.push_back(numbers::values(dob.values()));
    if (this->factor) results.push_back(numbers::values(factor.values()));
    return results;
  }

 private:
  template <class Side>
  void compute(const Side& side, const MlpCrossEntropy<S>& p, Accumulate<S>* loss,
               const MlpCrossEntropyGradients<S>& d) const {
    const auto& k = Side::template kernels<S>();
    const Scratch<Side> scratch(int64_t(k.mlp_cross_entropy_workspace(p, true)));
    k.mlp_cross_entropy(p, loss, &d, scratch.data(), side.executor());
    side.finish();
  }
};

}  // namespace models
