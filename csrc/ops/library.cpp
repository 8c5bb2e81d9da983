// Every schema on one screen. The functions that implement them carry the same names, each in its
// own file. Forward and backward are ops of their own; pymlp/functional.py ties them together for
// autograd.
//
// reduction: 0 none, 1 mean, 2 sum. Losses come in the type arithmetic is done in: float64 for
// float64, else float32. A forward_backward op returns the loss and the gradients of
// sum(grad_output * loss); without grad_output, those of the loss.
#include <torch/csrc/stable/library.h>

#include <string>

#include "ops/checks.h"

// clang-format off
STABLE_TORCH_LIBRARY(pymlp, m) {
  m.def("embed_linear_tanh_forward("
        "Tensor tokens, Tensor embedding, Tensor weight, Tensor? bias"
        ") -> Tensor");
  m.def("embed_linear_tanh_backward("
        "Tensor tokens, Tensor embedding, Tensor weight, Tensor hidden, Tensor dhidden"
        ") -> (Tensor dembedding, Tensor dweight, Tensor dbias)");

  m.def("cross_entropy_forward("
        "Tensor input, Tensor target, Tensor? weight, "
        "int ignore_index, int reduction, float label_smoothing"
        ") -> (Tensor loss, Tensor softmax)");
  m.def("cross_entropy_backward("
        "Tensor grad_output, Tensor input, Tensor target, Tensor softmax, Tensor? weight, "
        "int ignore_index, int reduction, float label_smoothing"
        ") -> Tensor");

  m.def("linear_cross_entropy_forward("
        "Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor target, Tensor? weight, "
        "int ignore_index, int reduction, float label_smoothing, float z_loss, float softcap"
        ") -> Tensor");
  m.def("linear_cross_entropy_forward_backward("
        "Tensor? grad_output, "
        "Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor target, Tensor? weight, "
        "int ignore_index, int reduction, float label_smoothing, float z_loss, float softcap"
        ") -> (Tensor loss, Tensor dinput, Tensor dlinear_weight, Tensor dlinear_bias)");

  m.def("mlp_cross_entropy_forward("
        "Tensor tokens, Tensor targets, Tensor embedding, Tensor hidden_weight, Tensor? hidden_bias, "
        "Tensor output_weight, Tensor? output_bias, "
        "int ignore_index, int reduction, float label_smoothing"
        ") -> Tensor");
  m.def("mlp_cross_entropy_forward_backward("
        "Tensor? grad_output, "
        "Tensor tokens, Tensor targets, Tensor embedding, Tensor hidden_weight, Tensor? hidden_bias, "
        "Tensor output_weight, Tensor? output_bias, "
        "int ignore_index, int reduction, float label_smoothing"
        ") -> (Tensor loss, Tensor dembedding, Tensor dhidden_weight, Tensor dhidden_bias, "
        "Tensor doutput_weight, Tensor doutput_bias)");

  m.def("mlp_logits("
        "Tensor tokens, Tensor embedding, Tensor hidden_weight, Tensor hidden_bias, "
        "Tensor output_weight, Tensor output_bias"
        ") -> Tensor");

  // Training in place, where CUDA kernels run (csrc/ops/training.h has what the arguments are).
  m.def("training_shared_bytes("
        "Tensor like, int vocab_size, int block_size, int n_embd, int n_hidden, int batch_size"
        ") -> (int least, int most)");
  m.def("train_models("
        "Tensor(a!)[] parameters, Tensor(b!)[] first, Tensor(c!)[] second, "
        "Tensor tokens, Tensor targets, Tensor[] indices, Tensor[] rates, "
        "Tensor(d!)[] losses, Tensor(e!)[] grad_norms, Tensor(f!)[] done, float[] settings"
        ") -> ()");
  m.def("training_rates(Tensor lr, Tensor done, Tensor like, float[] settings) -> Tensor");
  m.def("mlp_update("
        "Tensor(a!)[] parameters, Tensor[] gradients, Tensor(b!)[] first, Tensor(c!)[] second, "
        "Tensor rates, Tensor(d!) number, Tensor? factor, Tensor loss, Tensor(e!) losses, "
        "float[] settings"
        ") -> ()");
  m.def("step_batch(Tensor indices, Tensor number, Tensor tokens, Tensor targets) "
        "-> (Tensor, Tensor)");
  m.def("dropout_mask("
        "Tensor like, Tensor step, int seed, bool hidden, float p, int rows, int columns"
        ") -> Tensor");

  // The architectures of the CUDA kernels, such as "sm_80,sm_90"; empty: there are no kernels.
  m.def("cuda_architectures() -> str");
  // Whether ids on CUDA devices are checked, which waits for the device; returns what was set before.
  m.def("check_ids(bool enabled) -> bool");
}
// clang-format on

namespace {

std::string cuda_architectures() { return CUDA_ARCHITECTURES; }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pymlp, CompositeExplicitAutograd, m) {
  m.impl("cuda_architectures", TORCH_BOX(&cuda_architectures));
  m.impl("check_ids", TORCH_BOX(&pymlp::check_ids_on_devices));
}
