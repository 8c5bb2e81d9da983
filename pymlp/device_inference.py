"""Use of a model on a device of the native engine: losses of examples, and new sequences.

Hidden layers come from projection tables where there are many examples (`embed_linear_tanh`), and
losses without logits. Sequences are drawn as on the CPU, by the same numbers: the draw of a token
depends on the seed, the number of its sequence and its position alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pymlp import _engine, device_engine, reference
from pymlp._library import ops, too_old
from pymlp.data import Examples
from pymlp.functional import mlp_cross_entropy
from pymlp.model import MLP
from pymlp.plain import unsupported_reason

# Examples in a call: the hidden layer of so many is held at once.
_ROWS = 2**16

# Probabilities held at once; more sequences are drawn in several goes.
_MOST_PROBABILITIES = 2**26


def applies(model: MLP | reference.MLP) -> bool:
    """Whether the model is where this module computes, and one whose five parameters it knows."""
    parameters = list(model.parameters())
    return (
        unsupported_reason(model) is None
        and {p.device.type for p in parameters} <= {*device_engine.DEVICES}
        and too_old(model.embedding.weight.device) is None
        and {p.dtype for p in parameters} in ({torch.float32}, {torch.float64})
        and device_engine.unknown_option(model) is None
    )


@torch.no_grad()
def mean_loss(model: MLP | reference.MLP, examples: Examples) -> float:
    """Mean cross-entropy in nats; the device is asked for it once."""
    device = model.embedding.weight.device
    parts = examples.to(device).parts(_ROWS)
    sums = [mlp_cross_entropy(t, y, *_parameters(model), reduction="sum") for t, y in parts]
    return torch.stack(sums).double().sum().item() / len(examples)


@torch.no_grad()
def token_losses(model: MLP | reference.MLP, tokens: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats of each of ``targets`` (N,) after ``tokens`` (N, T): (N,) float64."""
    device = model.embedding.weight.device
    losses = [
        mlp_cross_entropy(t.to(device), y.to(device), *_parameters(model), reduction="none")
        for t, y in zip(tokens.split(_ROWS), targets.split(_ROWS), strict=True)
    ]
    if not losses:
        return torch.zeros(0, dtype=torch.float64, device="cpu")
    return torch.cat(losses).double().cpu()


@torch.no_grad()
def draw_ids(
    model: MLP | reference.MLP,
    count: int,
    *,
    prefix: list[int],
    max_length: int,
    temperature: float,
    top_k: int | None,
    seed: int,
) -> list[list[int]]:
    """As `pymlp.inference.draw_ids`.

    Raises:
        ValueError: the model's logits are not finite.
    """
    at_once = max(1, _MOST_PROBABILITIES // model.config.vocab_size)
    sequences: list[list[int]] = []
    for start in range(0, count, at_once):
        numbers = np.arange(start, min(count, start + at_once), dtype=np.int64)
        sequences += _draw(model, numbers, prefix, max_length, temperature, top_k, seed)
    return sequences


def _draw(
    model: MLP | reference.MLP,
    numbers: np.ndarray,
    prefix: list[int],
    max_length: int,
    temperature: float,
    top_k: int | None,
    seed: int,
) -> list[list[int]]:
    """The sequences of these numbers. Those that have ended are not carried along."""
    device = model.embedding.weight.device
    block_size = model.config.block_size
    context = torch.tensor(([0] * block_size + prefix)[-block_size:], device=device)
    contexts = context.expand(len(numbers), -1).contiguous()
    sequences = {int(number): list(prefix) for number in numbers}
    for position in range(len(prefix), max_length):
        if len(numbers) == 0:
            break
        logits = ops.mlp_logits(contexts, *_parameters(model))
        draws = _engine.uniforms(seed=seed, sequences=numbers, position=position)
        chosen = _choose(logits, torch.from_numpy(draws).to(device), temperature, top_k)
        going_on = chosen > 0
        contexts = torch.cat([contexts[:, 1:], chosen[:, None]], dim=1)[going_on]
        ids = chosen.cpu().numpy()  # waits for the device, once for each position
        if (ids < 0).any():
            raise ValueError("sample: the model gives no probabilities: its logits are not finite")
        numbers, ids = numbers[ids > 0], ids[ids > 0]
        for number, token in zip(numbers.tolist(), ids.tolist(), strict=True):
            sequences[number].append(token)
    return list(sequences.values())


def _choose(logits: Tensor, draws: Tensor, temperature: float, top_k: int | None) -> Tensor:
    """One token (N,) for each row of ``logits`` (N, V): the one whose part of [0, 1) holds its
    number of ``draws`` (N,), or with temperature 0 the likeliest; -1 where there are no
    probabilities."""
    if temperature == 0:
        finite = logits.isfinite().all(dim=1)
        return torch.where(finite, logits.argmax(dim=1), -1)
    if top_k is not None and top_k < logits.shape[1]:
        logits = _likeliest(logits, top_k)
    largest = logits.amax(dim=1, keepdim=True)
    weights = ((logits.double() - largest.double()) / temperature).to(logits.dtype).exp()
    sums = weights.double().cumsum(dim=1)
    total = sums[:, -1:]
    # Rounding may leave the last part too small: it is then the last token that has any.
    chosen = (sums <= draws[:, None] * total).sum(dim=1)
    last = logits.shape[1] - 1 - (weights > 0).flip(1).int().argmax(dim=1)
    return torch.where(total[:, 0].isfinite(), torch.minimum(chosen, last), -1)


def _likeliest(logits: Tensor, top_k: int) -> Tensor:
    """All but the ``top_k`` largest of each row become -inf; of equals the first ones stay."""
    least = logits.topk(top_k, dim=1).values[:, -1:]
    larger = logits > least
    equal = logits == least
    room = top_k - larger.sum(dim=1, keepdim=True)
    keep = larger | (equal & (equal.cumsum(dim=1) <= room))
    return logits.masked_fill(~keep, -torch.inf)


def _parameters(model: MLP | reference.MLP) -> list[Tensor]:
    return [parameter.detach() for parameter in model.parameters()]
