"""Loads the native ops (csrc/ops) as ``torch.ops.pymlp`` and tells torch the shapes they return.

The ops are private: they know nothing of autograd. `pymlp.functional` is their differentiable face.
"""

import re
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor


def _load() -> None:
    spec = find_spec("pymlp._engine")
    if spec is None or spec.origin is None:
        reason = _hidden_copy() or (
            "the native libraries are missing. Build them with `pip install -e .` "
            "(or `make .venv/.built`) in the directory of setup.py."
        )
        raise ImportError(f"pymlp: {reason}", name="pymlp")
    torch.ops.load_library(str(Path(spec.origin).with_name("_ops.so")))


def _hidden_copy() -> str | None:
    """The message that this source tree, which was not built, comes before an installed pymlp."""
    here = Path(__file__).resolve().parent
    elsewhere = [path for path in sys.path if Path(path, "pymlp").resolve() != here]
    found = PathFinder.find_spec("pymlp", elsewhere)
    if found is None or found.origin is None:
        return None
    return (
        f"the source folder {here}, which was not built, hides the pymlp that is installed in "
        f"{Path(found.origin).parents[1]}: run Python in another directory"
    )


_load()
ops = torch.ops.pymlp

# The architectures of the CUDA kernels, as nvcc names them; empty where there are no kernels.
CUDA_ARCHITECTURES = tuple(filter(None, ops.cuda_architectures().split(",")))
# Types of devices that have kernels.
KERNEL_DEVICES = ("cpu", "cuda") if CUDA_ARCHITECTURES else ("cpu",)


def too_old(device: torch.device) -> str | None:
    """Why the kernels do not run on a CUDA device of this age; None if they do."""
    if device.type != "cuda" or not CUDA_ARCHITECTURES:
        return None
    capability = torch.cuda.get_device_capability(device)
    # sm_90, sm_103 or compute_120: the last digit is the minor version.
    numbers = [int(number) for number in re.findall(r"\d+", " ".join(CUDA_ARCHITECTURES))]
    oldest = divmod(min(numbers), 10)
    if capability >= oldest:
        return None
    found, needed = (".".join(map(str, version)) for version in (capability, oldest))
    return f"{device} has compute capability {found}, the kernels need {needed} or newer"


def _loss(like: Tensor, n: int, reduction: int) -> Tensor:
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return like.new_empty((n,) if reduction == 0 else (), dtype=dtype)


@torch.library.register_fake("pymlp::embed_linear_tanh_forward")
def _(tokens: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return embedding.new_empty((*tokens.shape[:-1], weight.shape[0]))


@torch.library.register_fake("pymlp::embed_linear_tanh_backward")
def _(
    tokens: Tensor, embedding: Tensor, weight: Tensor, hidden: Tensor, dhidden: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        embedding.new_empty(embedding.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape[:1]),
    )


@torch.library.register_fake("pymlp::cross_entropy_forward")
def _(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> tuple[Tensor, Tensor]:
    loss = _loss(input, input.shape[0], reduction)
    return loss, loss.new_empty((input.shape[0], 2))


@torch.library.register_fake("pymlp::cross_entropy_backward")
def _(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    softmax: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> Tensor:
    return input.new_empty(input.shape)


@torch.library.register_fake("pymlp::linear_cross_entropy_forward")
def _(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
) -> Tensor:
    return _loss(input, input.shape[0], reduction)


@torch.library.register_fake("pymlp::linear_cross_entropy_forward_backward")
def _(
    grad_output: Tensor | None,
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        _loss(input, input.shape[0], reduction),
        input.new_empty(input.shape),
        linear_weight.new_empty(linear_weight.shape),
        linear_weight.new_empty(linear_weight.shape[:1]),
    )


@torch.library.register_fake("pymlp::mlp_cross_entropy_forward")
def _(
    tokens: Tensor,
    targets: Tensor,
    embedding: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> Tensor:
    return _loss(embedding, tokens.shape[0], reduction)


@torch.library.register_fake("pymlp::mlp_cross_entropy_forward_backward")
def _(
    grad_output: Tensor | None,
    tokens: Tensor,
    targets: Tensor,
    embedding: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        _loss(embedding, tokens.shape[0], reduction),
        embedding.new_empty(embedding.shape),
        hidden_weight.new_empty(hidden_weight.shape),
        hidden_weight.new_empty(hidden_weight.shape[:1]),
        output_weight.new_empty(output_weight.shape),
        output_weight.new_empty(output_weight.shape[:1]),
    )
