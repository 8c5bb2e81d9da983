"""Fused operators: drop-in, differentiable PyTorch functions.

They run native kernels for float64, float32, bfloat16 and float16, on the CPU (csrc/kernels/cpu)
and, where they were compiled, on CUDA devices from sm_80 on (csrc/kernels/cuda). 16-bit inputs are
accumulated in float32. They compose with torch.compile, torch.export, autocast,
checkpointing, DDP, retain_graph and derivatives of any order. Under torch.func transforms and
forward-mode derivatives, in second derivatives, and on devices without kernels, the same formula
runs in plain PyTorch (`pymlp.reference`).

From the kernels the same inputs give the same bits, run after run, with any number of threads, for
a given instruction set (`pymlp.isa`) or model of GPU. Where PyTorch's own ops run, what PyTorch
promises holds: the same bits with the same number of threads. On CUDA that includes large matrix
products, which are `torch.mm`: under `torch.use_deterministic_algorithms(True)` PyTorch asks for
CUBLAS_WORKSPACE_CONFIG, as it does for its own layers.

On CUDA no call waits for the device, so all of them may be captured in CUDA graphs. Therefore an id
out of range is no error there: the kernels touch nothing outside the tables, and the loss, or the
row of the hidden layer, is nan. `pymlp.debug.check_ids`, or PYMLP_CHECK_IDS=1, makes it raise.

Shapes use B (batch), T (block_size), V (vocab_size), E (n_embd) and H (n_hidden).
"""

from __future__ import annotations

from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from pymlp import _autograd, reference
from pymlp._autograd import REDUCTIONS, in_functorch
from pymlp._library import KERNEL_DEVICES

__all__ = ["cross_entropy", "embed_linear_tanh", "linear_cross_entropy", "mlp_cross_entropy"]

# Elements of `cross_entropy`'s input below which PyTorch's own op, whose autograd node is not in
# Python, is faster in eager mode (docs/performance.md). On the CPU alone: on CUDA that op answers a
# bad target with an assertion after which the process cannot use the device any more.
_WORTH_FUSING = 524_288
# Ids that `cross_entropy` takes and PyTorch's own op does not, or not in every case.
_NARROW_IDS = (torch.int32, torch.uint8)


def embed_linear_tanh(
    tokens: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """The hidden layer: look up T embedding rows, lay them side by side, linear layer, tanh.

    Equivalent to::

        torch.tanh(F.linear(F.embedding(tokens, embedding).flatten(-2), weight, bias))

    Computed by projection tables (csrc/kernels/cpu/embed_linear_tanh-inl.h): the matrix products
    are done once for each distinct token of a position, not for each example. Source: Bengio et al.
    (2003), equation 1 without direct connections; tables: Devlin et al. (2014), section 3.

    Args:
        tokens: (..., T) int32 or int64 ids in [0, V).
        embedding: (V, E) floating point.
        weight: (H, T*E), dtype of `embedding`; `torch.nn.Linear`'s layout.
        bias: (H,), dtype of `embedding`, or None.

    Returns:
        hidden (..., H) in the dtype of `embedding`; under autocast in autocast's dtype.

    Raises:
        RuntimeError: a shape, dtype or device does not fit, or an id is out of range (on CUDA:
            where `pymlp.debug.check_ids` is on).
    """
    required = {"embedding": embedding, "tokens": tokens, "weight": weight}
    if _use_formula("embed_linear_tanh", required, bias=bias):
        return reference.embed_linear_tanh(tokens, embedding, weight, bias)
    dtype = _autocast_dtype(embedding)
    if dtype is not None:
        embedding, weight, bias = _cast(embedding, dtype), _cast(weight, dtype), _cast(bias, dtype)
    hidden: Tensor
    if _needs_graph(embedding, weight, bias):
        hidden = _autograd.EmbedLinearTanh.apply(tokens, embedding, weight, bias)
    else:
        hidden = _autograd.embed_linear_tanh_forward(tokens, embedding, weight, bias)
    return hidden


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy of logits, in nats, stable for logits of any size.

    Equivalent to: `torch.nn.functional.cross_entropy` of the same signature, for every input it
    takes; int32 targets are accepted too. Inputs (N, V) with class ids (N,) run the fused kernel,
    which keeps two numbers a row for the backward instead of an (N, V) array; probability targets,
    uint8 ids, further dimensions, differentiable class weights and, in eager mode on the CPU,
    inputs of less than 524,288 elements go to PyTorch's own op. Which of them computes depends on
    size and dtype of the ids; the results are the same but for rounding. The kernel takes
    probabilities below the smallest normal number for 0 (docs/architecture.md, "Subnormal
    numbers").

    Args:
        input: (N, V) logits; (V,) and (N, V, d1, ...) are accepted.
        target: class ids in [0, V) or `ignore_index`, int32 or int64, shape (N,); or probabilities
            shaped as `input`.
        weight: (V,) weight of every class, dtype of `input`, or None for ones. A weight of inf
            that counts gives nan in the kernel where its probability is taken for 0.
        ignore_index: the id whose rows count for nothing: their loss is 0. Their gradient is 0
            too; as in PyTorch it is nan where 0 times a gradient is undefined, in a row that holds
            nan or inf, or nothing but -inf, and under smoothing with a weight of nan or inf.
        reduction: "mean" (over the weights of the targets), "sum" or "none".
        label_smoothing: share in [0, 1] of each target that is spread evenly over the classes.

    Returns:
        The loss: a scalar, or for "none" one number a row, in the dtype of `input` (float32 under
        autocast). With every row ignored, "mean" gives nan, as in PyTorch.

    Raises:
        ValueError: unknown `reduction`.
        RuntimeError: a shape, dtype or device does not fit, or an id is out of range (on CUDA:
            where `pymlp.debug.check_ids` is on).
    """
    # Outside of 0 to 1 PyTorch may ignore the smoothing.
    if (
        not torch.compiler.is_compiling()
        and 0 <= label_smoothing <= 1
        and getattr(target, "dtype", None) not in _NARROW_IDS
    ):
        try:
            if input.is_cpu and input.numel() < _WORTH_FUSING:
                return F.cross_entropy(
                    input, target, weight, None, ignore_index, None, reduction, label_smoothing
                )
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            pass  # bad input, which the checks below name better
    code = _reduction_code("cross_entropy", reduction)
    formula = _use_formula("cross_entropy", {"input": input, "target": target}, weight=weight)
    ids = target.dtype in (torch.int64, torch.int32)
    if not (ids or target.is_floating_point() or target.dtype == torch.uint8):
        dtype = str(target.dtype).removeprefix("torch.")
        raise RuntimeError(f"pymlp.cross_entropy: target must be int64 or int32, got {dtype}")
    fused = ids and target.dim() == 1 and input.dim() == 2
    if formula or not fused or (weight is not None and weight.requires_grad):
        return reference.cross_entropy(
            input, target, weight, ignore_index, reduction, label_smoothing
        )
    if _autocast_dtype(input) is not None:
        input, weight = _cast(input, torch.float32), _cast(weight, torch.float32)
    options = (ignore_index, code, label_smoothing)
    loss: Tensor
    if _needs_graph(input):
        loss = _autograd.CrossEntropy.apply(input, target, weight, options)
    else:
        loss, _ = _autograd.cross_entropy_forward(input, target, weight, *options)
    return loss.to(input.dtype)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:
    """Cross-entropy of a linear layer, in nats; the (N, V) logits never exist as a whole.

    Equivalent to::

        logits = F.linear(input, linear_weight, linear_bias)
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        loss = F.cross_entropy(logits, target, weight, ...)
        loss = loss + z_loss * logits.logsumexp(-1).square()  # reduced as the cross-entropy is

    With "mean" and "sum" the forward computes the gradients in its one pass over the logits, if any
    is required (Liger-Kernel, Hsu et al. 2024, does the same on GPUs); in 16 bits and with "none"
    the backward makes that pass. z-loss: PaLM, Chowdhery et al. (2022), section 5; softcap: Gemma 2
    (2024).

    Args:
        input: (..., H) floating point.
        linear_weight: (V, H), dtype of `input`.
        target: (...) class ids in [0, V) or `ignore_index`, int32 or int64; or (..., V)
            probabilities, for which PyTorch's own ops run.
        linear_bias: (V,), dtype of `input`, or None.
        weight: (V,) weight of every class, dtype of `input`, or None for ones.
        ignore_index, reduction, label_smoothing: as in `cross_entropy`.
        z_loss: factor of the squared log-normaliser that is added for every row that counts.
        softcap: bound of the logits' magnitude, or None for no bound.

    Returns:
        The loss: a scalar, or for "none" the leading shape of `input`, in the dtype of `input`
        (float32 under autocast).

    Raises:
        ValueError: unknown `reduction`, or `softcap` not positive.
        RuntimeError: a shape, dtype or device does not fit, or an id is out of range (on CUDA:
            where `pymlp.debug.check_ids` is on).
    """
    code = _reduction_code("linear_cross_entropy", reduction)
    if softcap is not None and not softcap > 0:
        raise ValueError(
            f"pymlp.linear_cross_entropy: softcap must be positive or None, got {softcap}"
        )
    required = {"input": input, "linear_weight": linear_weight, "target": target}
    formula = _use_formula("linear_cross_entropy", required, linear_bias=linear_bias, weight=weight)
    differentiable_weight = weight is not None and weight.requires_grad
    if formula or target.is_floating_point() or differentiable_weight:
        return reference.linear_cross_entropy(
            input,
            linear_weight,
            target,
            linear_bias=linear_bias,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
        )
    leading = input.shape[:-1]
    if len(leading) != 1:
        input, target = _merge_leading("linear_cross_entropy", input=input, target=target)
    dtype = _autocast_dtype(input)
    if dtype is not None:
        input, linear_weight = _cast(input, dtype), _cast(linear_weight, dtype)
        linear_bias, weight = _cast(linear_bias, dtype), _cast(weight, dtype)
    arguments = (input, linear_weight, linear_bias, target, weight)
    options = (ignore_index, code, label_smoothing, z_loss, softcap or 0.0)
    loss: Tensor
    if _needs_graph(input, linear_weight, linear_bias):
        loss = _autograd.LinearCrossEntropy.apply(*arguments, options)
    else:
        loss = _autograd.linear_cross_entropy_forward(*arguments, *options)
    if reduction == "none":
        loss = loss.reshape(leading)
    return loss.to(input.dtype) if dtype is None else loss


def mlp_cross_entropy(
    tokens: Tensor,
    targets: Tensor,
    embedding: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor | None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The whole model and its loss, in nats per token, as one operator.

    Equivalent to::

        hidden = embed_linear_tanh(tokens, embedding, hidden_weight, hidden_bias)
        linear_cross_entropy(hidden, output_weight, targets, linear_bias=output_bias, ...)

    One native call computes the loss and all gradients, chunk of rows by chunk of rows, so that
    neither the (N, H) hidden layer nor the (N, V) logits ever exist as a whole.

    Args:
        tokens: (..., T) int32 or int64 ids in [0, V).
        targets: (...) int32 or int64 ids in [0, V), or `ignore_index`.
        embedding: (V, E) floating point.
        hidden_weight, hidden_bias: (H, T*E) and (H,) or None, dtype of `embedding`.
        output_weight, output_bias: (V, H) and (V,) or None, dtype of `embedding`.
        ignore_index, reduction, label_smoothing: as in `cross_entropy`.

    Returns:
        The loss: a scalar, or for "none" the shape of `targets`, in the dtype of `embedding`
        (float32 under autocast).

    Raises:
        ValueError: unknown `reduction`.
        RuntimeError: a shape, dtype or device does not fit, or an id is out of range (on CUDA:
            where `pymlp.debug.check_ids` is on).
    """
    code = _reduction_code("mlp_cross_entropy", reduction)
    if reduction == "none":
        return linear_cross_entropy(
            embed_linear_tanh(tokens, embedding, hidden_weight, hidden_bias),
            output_weight,
            targets,
            linear_bias=output_bias,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    required = {
        "embedding": embedding,
        "tokens": tokens,
        "targets": targets,
        "hidden_weight": hidden_weight,
        "output_weight": output_weight,
    }
    if _use_formula(
        "mlp_cross_entropy", required, hidden_bias=hidden_bias, output_bias=output_bias
    ):
        return reference.mlp_cross_entropy(
            tokens,
            targets,
            embedding,
            hidden_weight,
            hidden_bias,
            output_weight,
            output_bias,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    if tokens.dim() != 2:
        tokens, targets = _merge_leading("mlp_cross_entropy", tokens=tokens, targets=targets)
    dtype = _autocast_dtype(embedding)
    if dtype is not None:
        embedding, hidden_weight = _cast(embedding, dtype), _cast(hidden_weight, dtype)
        hidden_bias, output_bias = _cast(hidden_bias, dtype), _cast(output_bias, dtype)
        output_weight = _cast(output_weight, dtype)
    parameters = (embedding, hidden_weight, hidden_bias, output_weight, output_bias)
    options = (ignore_index, code, label_smoothing)
    loss: Tensor
    if _needs_graph(*parameters):
        loss = _autograd.MLPCrossEntropy.apply(tokens, targets, *parameters, options)
    else:
        loss = _autograd.mlp_cross_entropy_forward(tokens, targets, *parameters, *options)
    return loss.to(embedding.dtype) if dtype is None else loss


def _use_formula(op: str, required: dict[str, Tensor], **optional: Tensor | None) -> bool:
    """Whether plain PyTorch must run: no kernels for the device, or a transform to compose with."""
    for tensor in required.values():
        if not getattr(tensor, "is_cpu", False):
            return _use_formula_elsewhere(op, required, optional)
    for argument in optional.values():
        if argument is not None and not getattr(argument, "is_cpu", False):
            return _use_formula_elsewhere(op, required, optional)
    return _in_transform()


def _use_formula_elsewhere(
    op: str, required: dict[str, Tensor], optional: dict[str, Tensor | None]
) -> bool:
    """The same where not every argument is a tensor on the CPU."""
    _check_devices(op, required, optional)
    first, *_ = required.values()
    return first.device.type not in KERNEL_DEVICES or _in_transform()


def _in_transform() -> bool:
    return in_functorch() or forward_ad._current_level >= 0


def _check_devices(
    op: str, required: dict[str, Tensor], optional: dict[str, Tensor | None]
) -> None:
    """Every argument a tensor, on the device of the first."""
    (like, first), *_ = required.items()
    given = {name: tensor for name, tensor in optional.items() if tensor is not None}
    for name, tensor in (required | given).items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"pymlp.{op}: {name} must be a tensor, got {type(tensor).__name__}")
        if tensor.device != first.device:
            raise RuntimeError(
                f"pymlp.{op}: {name} must be on {first.device} like {like}, got {tensor.device}"
            )


def _autocast_dtype(like: Tensor) -> torch.dtype | None:
    """The dtype that autocast computes in on the device of a tensor; None where it is off."""
    device = "cpu" if like.is_cpu else "cuda"
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _needs_graph(*inputs: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)


@overload
def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor: ...
@overload
def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None: ...
def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """As autocast does it: float64 stays as it is."""
    return tensor if tensor is None or tensor.dtype == torch.float64 else tensor.to(dtype)


def _reduction_code(op: str, reduction: str) -> int:
    code = REDUCTIONS.get(reduction)
    if code is None:
        raise ValueError(
            f"pymlp.{op}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}"
        )
    return code


def _merge_leading(op: str, **tensors: Tensor) -> tuple[Tensor, Tensor]:
    """Merge the leading dimensions of two tensors, (..., K) and (...)."""
    (name, tensor), (ids_name, ids) = tensors.items()
    if tensor.dim() == 0:
        raise RuntimeError(f"pymlp.{op}: {name} must have at least 1 dimension, got shape ()")
    leading = tensor.shape[:-1]
    if ids.shape != leading:
        raise RuntimeError(
            f"pymlp.{op}: {ids_name} must have shape {tuple(leading)}, got {tuple(ids.shape)}"
        )
    return tensor.reshape(ids.numel(), tensor.shape[-1]), ids.reshape(-1)
