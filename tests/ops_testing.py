"""What the tests of the operators share: cases, the formulas that are right, and the tolerances.

A `Case` is one call of an operator. `Case.run(functional)` makes it with pymlp's operators,
`Case.run(plain)` with the formulas of this file, which are the "Equivalent to" of the docstrings
in PyTorch's own functions.
"""

import os
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pymlp import functional
from pymlp._library import KERNEL_DEVICES

# What the tests marked gpu run on, None for nothing. PYMLP_TEST_GPU=cpu lets them run on the CPU
# instead, which shows that they can run.
GPU = os.environ.get("PYMLP_TEST_GPU")
if GPU is None and "cuda" in KERNEL_DEVICES and torch.cuda.is_available():
    GPU = "cuda"
# Where CUDA kernels run: on a GPU, or in emulation on the CPU (`make emulate-ops`); else None.
_EMULATED = torch._C._dispatch_has_kernel_for_dispatch_key("pymlp::train_models", "CPU")
WHERE = "cuda" if GPU == "cuda" else "cpu" if _EMULATED else None

OPS = ("embed_linear_tanh", "cross_entropy", "linear_cross_entropy", "mlp_cross_entropy")
LOSSES = OPS[1:]
# Floats in a vector, as the compiler sees it in the source file of each instruction set.
LANES = {"avx512": 16, "avx2": 8, "neon": 4, "baseline": 4}

# What `cross_entropy` leaves to PyTorch; conftest.py changes it.
WORTH_FUSING = functional._WORTH_FUSING

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

# How far an error may exceed PyTorch's own, relative to the largest magnitude of the truth.
TOLERANCE = {
    # The truth is PyTorch's result in this very dtype, so its own error counts as 0, and ours is
    # the difference between two orders of summation.
    torch.float64: 64 * torch.finfo(torch.float64).eps,
    # Sums in another order than PyTorch's, which is sometimes lucky.
    torch.float32: 8 * torch.finfo(torch.float32).eps,
    # Summed in float32 and rounded to the dtype once, after a hidden layer that was: half a unit in
    # the last place each.
    torch.bfloat16: torch.finfo(torch.bfloat16).eps,
    torch.float16: torch.finfo(torch.float16).eps,
}


# --- the formulas ---------------------------------------------------------------------------------


def _embed_linear_tanh(tokens, embedding, weight, bias=None):
    return torch.tanh(F.linear(F.embedding(tokens, embedding).flatten(-2), weight, bias))


def _cross_entropy(input, target, weight=None, **options):
    return F.cross_entropy(input, target.long(), weight, **options)


def _linear_cross_entropy(
    input, linear_weight, target, *, linear_bias=None, z_loss=0.0, softcap=None, **options
):
    logits = F.linear(input, linear_weight, linear_bias).reshape(-1, len(linear_weight))
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    loss = _cross_entropy(logits, target.reshape(-1), **options)
    if z_loss:
        loss = loss + z_loss * _squared_log_normaliser(logits, target.reshape(-1), **options)
    return loss.view(input.shape[:-1]) if loss.dim() else loss


def _squared_log_normaliser(
    logits, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    counts = target != ignore_index
    squares = logits.logsumexp(-1).square() * counts
    if reduction == "none":
        return squares
    total = counts.sum() if weight is None else weight[target[counts]].sum()
    return squares.sum() / (total if reduction == "mean" else 1)


def _mlp_cross_entropy(
    tokens, targets, embedding, hidden_weight, hidden_bias, output_weight, output_bias, **options
):
    hidden = _embed_linear_tanh(tokens, embedding, hidden_weight, hidden_bias)
    return _linear_cross_entropy(hidden, output_weight, targets, linear_bias=output_bias, **options)


plain = SimpleNamespace(
    embed_linear_tanh=_embed_linear_tanh,
    cross_entropy=_cross_entropy,
    linear_cross_entropy=_linear_cross_entropy,
    mlp_cross_entropy=_mlp_cross_entropy,
)


# --- cases ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One call of an operator: ids, differentiable parameters, and everything else by name."""

    op: str
    ids: dict[str, Tensor]
    parameters: dict[str, Tensor | None]
    options: dict[str, Any]

    def run(self, module, *parameters, **changes) -> Tensor:
        """Call the operator of `module` (`functional` or `plain`).

        parameters: all that are tensors, in their order, if not the case's own. changes: other
        values for arguments by name.
        """
        values = dict(zip(self.names, parameters, strict=True)) if parameters else {}
        arguments = self.ids | self.parameters | values | self.options | changes
        return getattr(module, self.op)(**arguments)

    @property
    def names(self) -> list[str]:
        return [name for name, value in self.parameters.items() if value is not None]

    def leaves(self) -> list[Tensor]:
        """Fresh copies of the parameters that require gradients."""
        return [self.parameters[name].detach().clone().requires_grad_() for name in self.names]

    def to(self, dtype: torch.dtype) -> "Case":
        def convert(values):
            return {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in values.items()}

        return replace(self, parameters=convert(self.parameters), options=convert(self.options))


def seeded(seed: int) -> torch.Generator:
    """A generator for tensors on the default device."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def random_like(tensor: Tensor, seed=1) -> Tensor:
    """Random numbers, the same in every dtype up to rounding."""
    return torch.randn(tensor.shape, generator=seeded(seed), dtype=torch.float64).to(tensor.dtype)


def make_case(
    op, *, N=7, T=3, V=11, E=4, H=9, bias=True, ignored=0, class_weight=False, seed=0, **options
) -> Case:
    """A random case in float64. N may be a tuple, the leading shape; `ignored` targets are -100."""
    generator = seeded(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def linear(fan_out, fan_in):
        return randn(fan_out, fan_in) / fan_in**0.5, randn(fan_out) / 2 if bias else None

    leading = N if isinstance(N, tuple) else (N,)
    tokens = torch.randint(V, (*leading, T), generator=generator)
    target = torch.randint(V, leading, generator=generator)
    target.view(-1)[:ignored] = -100
    embedding, (hidden_weight, hidden_bias) = randn(V, E), linear(H, T * E)
    output_weight, output_bias = linear(V, H)
    if class_weight:
        options["weight"] = 0.2 + randn(V).abs()
    if op == "embed_linear_tanh":
        parameters = {"embedding": embedding, "weight": hidden_weight, "bias": hidden_bias}
        return Case(op, {"tokens": tokens}, parameters, options)
    if op == "cross_entropy":
        return Case(op, {"target": target}, {"input": 2 * randn(*leading, V)}, options)
    output = {"output_weight": 2 * output_weight, "output_bias": output_bias}
    if op == "linear_cross_entropy":
        parameters = {"input": randn(*leading, H)}
        parameters |= {name.replace("output", "linear"): value for name, value in output.items()}
        return Case(op, {"target": target}, parameters, options)
    hidden = {"hidden_weight": hidden_weight, "hidden_bias": hidden_bias}
    parameters = {"embedding": embedding} | hidden | output
    return Case(op, {"tokens": tokens, "targets": target}, parameters, options)


# --- results and errors ---------------------------------------------------------------------------


def results(module, case: Case, seed=1) -> dict[str, Tensor]:
    """The output, and its gradients for a random grad_output, by name."""
    leaves = case.leaves()
    output = case.run(module, *leaves)
    gradients = torch.autograd.grad(output, leaves, random_like(output, seed))
    found = {"output": output.detach()}
    for name, leaf, gradient in zip(case.names, leaves, gradients, strict=True):
        assert gradient.dtype == leaf.dtype
        assert gradient.shape == leaf.shape
        found["d" + name] = gradient
    return found


def relative_error(found: Tensor, truth: Tensor) -> float:
    """The largest error, relative to the largest magnitude of the truth."""
    assert found.shape == truth.shape
    if truth.numel() == 0:
        return 0.0
    assert torch.isfinite(truth).all()
    scale = truth.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return ((found.double() - truth).abs().max() / scale).item()


def errors(module, case: Case, dtype: torch.dtype) -> dict[str, float]:
    """Relative errors of output and gradients in `dtype` against the plain formula in float64."""
    case = case.to(dtype)
    truth = results(plain, case.to(torch.float64))
    return {
        name: relative_error(found, truth[name]) for name, found in results(module, case).items()
    }


def assert_no_worse_than_torch(case: Case, dtype: torch.dtype) -> None:
    """error(pymlp) <= error(PyTorch) + TOLERANCE, for the output and every gradient."""
    ours, torchs = errors(functional, case, dtype), errors(plain, case, dtype)
    for name, error in ours.items():
        limit = torchs[name] + TOLERANCE[dtype]
        assert error <= limit, f"{case.op} {name} {dtype}: error {error:.2e}, at most {limit:.2e}"


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same bits."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
