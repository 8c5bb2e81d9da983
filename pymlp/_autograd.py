"""The autograd Functions that tie forward and backward ops together.

Each Function calls one native op per direction. Two things are left to the same formula in plain
PyTorch (`pymlp.reference`), which is right by construction: derivatives of the backward itself
(``create_graph=True``), and backward passes under torch.func transforms. They cost speed only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from pymlp import reference
from pymlp._library import ops

# Private, but the only way to ask; the same in every torch this library supports.
in_functorch: Callable[[], bool] = torch._C._are_functorch_transforms_active
# The test for batched tensors of torch.autograd.grad(is_grads_batched=True), which is not one of
# those transforms.
_is_batched: Callable[[Tensor], bool] = torch._C._functorch.is_legacy_batchedtensor
# FakeTensorMode and make_fx are such modes; the second traces plain tensors too.
_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack

embed_linear_tanh_forward = ops.embed_linear_tanh_forward.default
embed_linear_tanh_backward = ops.embed_linear_tanh_backward.default
cross_entropy_forward = ops.cross_entropy_forward.default
cross_entropy_backward = ops.cross_entropy_backward.default
linear_cross_entropy_forward = ops.linear_cross_entropy_forward.default
linear_cross_entropy_forward_backward = ops.linear_cross_entropy_forward_backward.default
mlp_cross_entropy_forward = ops.mlp_cross_entropy_forward.default
mlp_cross_entropy_forward_backward = ops.mlp_cross_entropy_forward_backward.default

# Scalar arguments of the ops, after their tensors, in the order of csrc/ops/library.cpp.
Options = tuple[Any, ...]

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}
_REDUCTION_NAMES = tuple(REDUCTIONS)


def _needs_formula() -> bool:
    """Whether a backward must itself be differentiable or transformable."""
    return torch.is_grad_enabled() or in_functorch() or forward_ad._current_level >= 0


def _formula_gradients(
    formula: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad_output: Tensor
) -> list[Tensor | None]:
    """Gradients of ``formula(*inputs)`` as differentiable functions of inputs and grad_output.

    The inputs have the dtype that autocast, if any, gave them in the forward; autocast in the
    backward must not give them another.
    """
    with torch.enable_grad(), torch.autocast(grad_output.device.type, enabled=False):
        # Aliases, so that a tensor passed twice gets the gradient of each of its places.
        aliases = {
            i: x.view_as(x) for i, x in enumerate(inputs) if x is not None and x.requires_grad
        }
        output = formula(*(aliases.get(i, x) for i, x in enumerate(inputs)))
        found = torch.autograd.grad(
            output, list(aliases.values()), grad_output.to(output.dtype), create_graph=True
        )
    gradients = dict(zip(aliases, found, strict=True))
    return [gradients.get(i) for i in range(len(inputs))]


def _has_memory(tensor: Tensor) -> bool:
    """Whether it is more than a description: neither fake, traced nor batched."""
    return type(tensor) is Tensor and not _dispatch_modes() and not _is_batched(tensor)


def _keep(ctx: Any, inputs: Sequence[Tensor | None], gradients: list[Tensor]) -> None:
    """Save the inputs, and gradients that the forward has already computed.

    In eager mode the gradients are kept outside of save_for_backward, so that the first backward
    can hand them over without a copy; a later one (retain_graph) computes them again.
    """
    if torch.compiler.is_compiling():
        ctx.save_for_backward(*inputs, *gradients)
    else:
        ctx.save_for_backward(*inputs)
        ctx.gradients = gradients


def _take(ctx: Any, n_inputs: int, grad_output: Tensor) -> Sequence[Tensor]:
    """The forward's gradients times grad_output; empty if there are none to take."""
    if torch.compiler.is_compiling():
        return [g * grad_output.to(g.dtype) for g in ctx.saved_tensors[n_inputs:]]
    gradients: list[Tensor] = ctx.gradients
    if not _has_memory(grad_output):
        return [g * grad_output for g in gradients]
    ctx.gradients = []
    # Asking a device for the value would wait for all that it has to do.
    if gradients and not (grad_output.is_cpu and grad_output.item() == 1.0):
        torch._foreach_mul_(gradients, grad_output)
    return gradients


def _wanted(gradients: Sequence[Tensor | None], needed: Sequence[bool]) -> Iterator[Tensor | None]:
    return (g if need else None for g, need in zip(gradients, needed, strict=True))


def _worth_precomputing(dtype: torch.dtype, reduction: int) -> bool:
    """Whether the forward should compute the gradients, before their scale is known.

    Not where rows are scaled one by one, nor in 16 bits, where the factors of loss scaling must
    come before rounding.
    """
    return reduction != 0 and dtype in (torch.float32, torch.float64)


class EmbedLinearTanh(Function):
    """embed_linear_tanh(tokens, embedding, weight, bias)."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        hidden: Tensor = embed_linear_tanh_forward(tokens, embedding, weight, bias)
        ctx.save_for_backward(tokens, embedding, weight, bias, hidden)
        return hidden

    @staticmethod
    def backward(ctx: Any, dhidden: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, hidden = ctx.saved_tensors
        if _needs_formula():
            return tuple(_formula_gradients(reference.embed_linear_tanh, inputs, dhidden))
        tokens, embedding, weight, bias = inputs
        dembedding, dweight, dbias = embed_linear_tanh_backward(
            tokens, embedding, weight, hidden, dhidden
        )
        return None, dembedding, dweight, None if bias is None else dbias


class CrossEntropy(Function):
    """cross_entropy(input, target, weight, (ignore_index, reduction, label_smoothing))."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, target: Tensor, weight: Tensor | None, options: Options
    ) -> Tensor:
        loss: Tensor
        loss, softmax = cross_entropy_forward(input, target, weight, *options)
        ctx.save_for_backward(input, target, weight, softmax)
        ctx.options = options
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, softmax = ctx.saved_tensors
        input, target, weight = inputs
        ignore_index, reduction, label_smoothing = ctx.options
        if _needs_formula():

            def formula(input: Tensor) -> Tensor:
                return reference.cross_entropy(
                    input,
                    target,
                    weight,
                    ignore_index,
                    _REDUCTION_NAMES[reduction],
                    label_smoothing,
                )

            (dinput,) = _formula_gradients(formula, [input], grad_output)
        else:
            dinput = cross_entropy_backward(
                grad_output.to(softmax.dtype), input, target, softmax, weight, *ctx.options
            )
        return dinput, None, None, None


class LinearCrossEntropy(Function):
    """linear_cross_entropy(input, linear_weight, linear_bias, target, weight, options).

    The loss comes in the dtype that arithmetic is done in.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        linear_weight: Tensor,
        linear_bias: Tensor | None,
        target: Tensor,
        weight: Tensor | None,
        options: Options,
    ) -> Tensor:
        inputs = (input, linear_weight, linear_bias, target, weight)
        loss: Tensor
        if _worth_precomputing(input.dtype, options[1]):
            loss, *gradients = linear_cross_entropy_forward_backward(None, *inputs, *options)
        else:
            loss, gradients = linear_cross_entropy_forward(*inputs, *options), []
        _keep(ctx, inputs, gradients)
        ctx.options = options
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        gradients: Sequence[Tensor | None]
        if _needs_formula():
            gradients = LinearCrossEntropy._formula_gradients(ctx, grad_output)
        else:
            gradients = _take(ctx, 5, grad_output)
            if not gradients:
                _, *gradients = linear_cross_entropy_forward_backward(
                    grad_output, *ctx.saved_tensors[:5], *ctx.options
                )
        return *_wanted(gradients, ctx.needs_input_grad[:3]), None, None, None

    @staticmethod
    def _formula_gradients(ctx: Any, grad_output: Tensor) -> Sequence[Tensor | None]:
        *parameters, target, weight = ctx.saved_tensors[:5]
        ignore_index, reduction, label_smoothing, z_loss, softcap = ctx.options

        def formula(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
            return reference.linear_cross_entropy(
                input,
                linear_weight,
                target,
                linear_bias=linear_bias,
                weight=weight,
                ignore_index=ignore_index,
                reduction=_REDUCTION_NAMES[reduction],
                label_smoothing=label_smoothing,
                z_loss=z_loss,
                softcap=softcap if softcap > 0 else None,
            )

        return _formula_gradients(formula, parameters, grad_output)


class MLPCrossEntropy(Function):
    """mlp_cross_entropy(tokens, targets, five parameters, options).

    The loss comes in the dtype that arithmetic is done in.
    """

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        targets: Tensor,
        embedding: Tensor,
        hidden_weight: Tensor,
        hidden_bias: Tensor | None,
        output_weight: Tensor,
        output_bias: Tensor | None,
        options: Options,
    ) -> Tensor:
        parameters = (embedding, hidden_weight, hidden_bias, output_weight, output_bias)
        inputs = (tokens, targets, *parameters)
        loss: Tensor
        if _worth_precomputing(embedding.dtype, options[1]):
            loss, *gradients = mlp_cross_entropy_forward_backward(None, *inputs, *options)
        else:
            loss, gradients = mlp_cross_entropy_forward(*inputs, *options), []
        _keep(ctx, inputs, gradients)
        ctx.options = options
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        gradients: Sequence[Tensor | None]
        if _needs_formula():
            gradients = MLPCrossEntropy._formula_gradients(ctx, grad_output)
        else:
            gradients = _take(ctx, 7, grad_output)
            if not gradients:
                _, *gradients = mlp_cross_entropy_forward_backward(
                    grad_output, *ctx.saved_tensors[:7], *ctx.options
                )
        return None, None, *_wanted(gradients, ctx.needs_input_grad[2:7]), None

    @staticmethod
    def _formula_gradients(ctx: Any, grad_output: Tensor) -> Sequence[Tensor | None]:
        tokens, targets, *parameters = ctx.saved_tensors[:7]
        ignore_index, reduction, label_smoothing = ctx.options

        def formula(*parameters: Tensor) -> Tensor:
            return reference.mlp_cross_entropy(
                tokens,
                targets,
                *parameters,
                ignore_index=ignore_index,
                reduction=_REDUCTION_NAMES[reduction],
                label_smoothing=label_smoothing,
            )

        return _formula_gradients(formula, parameters, grad_output)
