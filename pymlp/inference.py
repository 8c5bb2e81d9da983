"""Use of a model without PyTorch between the tokens: losses of examples, and new sequences.

The work is done by csrc/engine/inference.cpp, from projection tables (Devlin et al., 2014): the
hidden layer of an example is the sum of T table rows. `pymlp.device_inference` does it on GPUs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pymlp import _engine, device_inference, functional, reference
from pymlp.model import MLP
from pymlp.plain import unsupported_reason

_LOSSES: dict[torch.dtype, Any] = {
    torch.float32: _engine.token_losses_float32,
    torch.float64: _engine.token_losses_float64,
}
_LOGITS_OF: dict[torch.dtype, Any] = {
    torch.float32: _engine.token_logits_float32,
    torch.float64: _engine.token_logits_float64,
}
_SAMPLES: dict[torch.dtype, Any] = {
    torch.float32: _engine.sample_float32,
    torch.float64: _engine.sample_float64,
}

# Examples, and logits, that are held at once where PyTorch does the work.
_ROWS, _LOGITS = 4096, 2**24
# Examples that are held at once where one logit of each is enough.
_NARROW_ROWS = 2**15

# Multiply-adds that are worth the start of threads, 50 microseconds.
_WORTH_THREADS = 2**22


def is_native(model: MLP | reference.MLP) -> bool:
    """Whether the C++ code can do what ``model`` does."""
    parameters = list(model.parameters())
    dtypes = {parameter.dtype for parameter in parameters}
    return (
        unsupported_reason(model) is None
        and len(dtypes) == 1
        and dtypes <= _LOSSES.keys()
        and all(parameter.is_cpu for parameter in parameters)
    )


def can_draw(model: MLP | reference.MLP) -> bool:
    """Whether `draw_ids` can draw from ``model``."""
    return device_inference.applies(model) or is_native(model)


@torch.no_grad()
def token_logits(model: MLP | reference.MLP, tokens: Tensor, targets: Tensor) -> Tensor:
    """The logit of each of ``targets`` (N,) after ``tokens`` (N, T): (N,) float64.

    It is the log-probability up to log Z, for H multiply-adds instead of V * H.
    Equivalent to: ``model(tokens).gather(1, targets[:, None])[:, 0].double()``.
    """
    if is_native(model):
        return _of_tokens(_LOGITS_OF, model, tokens, targets, vocabulary=1)
    device = next(model.parameters()).device
    is_narrow = unsupported_reason(model) is None
    rows = _NARROW_ROWS if is_narrow else _rows(model)
    logits_of = _narrow_logits if is_narrow else _gathered_logits
    batches = zip(tokens.split(rows), targets.split(rows), strict=True)
    return _joined([logits_of(model, t.to(device), y.to(device)) for t, y in batches])


def _gathered_logits(model: MLP | reference.MLP, tokens: Tensor, targets: Tensor) -> Tensor:
    logits: Tensor = model(tokens)
    return logits.gather(1, targets.long()[:, None])[:, 0]


def _narrow_logits(model: MLP | reference.MLP, tokens: Tensor, targets: Tensor) -> Tensor:
    embedding, hidden, output = model.embedding.weight, model.hidden, model.output
    h = functional.embed_linear_tanh(tokens, embedding, hidden.weight, hidden.bias)
    logits = (h * F.embedding(targets, output.weight)).sum(1, dtype=_wide(h))
    logits = logits + output.bias[targets]
    if model.direct is not None:
        x = F.embedding(tokens, embedding).flatten(1)
        logits = logits + (x * F.embedding(targets, model.direct.weight)).sum(1, dtype=_wide(x))
    return logits


@torch.no_grad()
def log_normalisers(model: MLP | reference.MLP, tokens: Tensor) -> Tensor:
    """log Z after each of ``tokens`` (N, T), what `token_logits` leaves out: (N,) float64."""
    if is_native(model):
        any_token = torch.zeros(len(tokens), dtype=torch.int64, device="cpu")
        return token_losses(model, tokens, any_token) + token_logits(model, tokens, any_token)
    device = next(model.parameters()).device
    parts = [
        (logits := model(part.to(device))).to(_wide(logits)).logsumexp(-1)
        for part in tokens.split(_rows(model))
    ]
    return _joined(parts)


def _joined(parts: list[Tensor]) -> Tensor:
    """Values of all examples, which may lie on a device: (N,) float64 on the CPU."""
    if not parts:
        return torch.zeros(0, dtype=torch.float64, device="cpu")
    return torch.cat(parts).double().cpu()


def _wide(tensor: Tensor) -> torch.dtype:
    """The dtype to add up in: float32 at least."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _rows(model: MLP | reference.MLP) -> int:
    return min(_ROWS, max(1, _LOGITS // model.config.vocab_size))


@torch.no_grad()
def token_losses(model: MLP | reference.MLP, tokens: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats of each of ``targets`` (N,) after ``tokens`` (N, T): (N,) float64.

    Equivalent to: ``F.cross_entropy(model(tokens), targets, reduction="none").double()``.
    """
    if device_inference.applies(model):
        return device_inference.token_losses(model, tokens, targets)
    if not is_native(model):
        device, rows = next(model.parameters()).device, _rows(model)
        parts = [
            F.cross_entropy(
                (logits := model(t.to(device))).to(_wide(logits)), y.to(device), reduction="none"
            )
            for t, y in zip(tokens.split(rows), targets.split(rows), strict=True)
        ]
        return _joined(parts)
    return _of_tokens(_LOSSES, model, tokens, targets, vocabulary=model.config.vocab_size)


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
    """Ids of ``count`` sequences from a model that `can_draw`, the prefix included.

    The draw of a token depends on the seed, the number of its sequence and its position alone: not
    on ``count``, nor on the number of threads.
    """
    if device_inference.applies(model):
        return device_inference.draw_ids(
            model,
            count,
            prefix=prefix,
            max_length=max_length,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
        )
    ids, starts = _SAMPLES[model.embedding.weight.dtype](
        **_description(model),
        count=count,
        prefix=prefix,
        max_length=max_length,
        temperature=temperature,
        top_k=top_k or 0,
        seed=seed,
        threads=torch.get_num_threads(),
    )
    flat, bounds = ids.tolist(), starts.tolist()
    return [flat[bounds[i] : bounds[i + 1]] for i in range(count)]


def _of_tokens(
    functions: dict[torch.dtype, Any],
    model: MLP | reference.MLP,
    tokens: Tensor,
    targets: Tensor,
    vocabulary: int,
) -> Tensor:
    """The value of each of ``targets`` by C++ code, from ``vocabulary`` logits: (N,) float64."""
    work = len(targets) * _multiply_adds(model, vocabulary)
    values = functions[model.embedding.weight.dtype](
        **_description(model),
        tokens=tokens.contiguous().long().numpy(),
        targets=targets.contiguous().long().numpy(),
        threads=torch.get_num_threads() if work > _WORTH_THREADS else 1,
    )
    # numpy starts no threads: torch's own do not survive a fork.
    return torch.from_numpy(values.astype(np.float64, copy=False))


def _multiply_adds(model: MLP | reference.MLP, vocabulary: int) -> int:
    """The approximate multiply-adds of one example, with ``vocabulary`` logits."""
    c = model.config
    n_input = c.block_size * c.n_embd
    return c.n_hidden * n_input + (c.n_hidden + c.direct * n_input) * vocabulary


def _description(model: MLP | reference.MLP) -> dict[str, Any]:
    config = model.config
    return {
        "sizes": (config.vocab_size, config.block_size, config.n_embd, config.n_hidden),
        "parameters": [p.detach().contiguous().numpy() for p in model.parameters()],
    }
