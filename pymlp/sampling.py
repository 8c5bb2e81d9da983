"""Lines drawn from a model, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from pymlp import _engine, reference
from pymlp.arguments import to_float, to_int
from pymlp.data import Dataset, Line, Vocabulary, encode
from pymlp.inference import can_draw, draw_ids
from pymlp.lines import as_lines
from pymlp.model import MLP
from pymlp.plain import check_model

# The lecture's: its training seed, plus 10.
SAMPLE_SEED = 2147483647 + 10

# Below it nothing but the likeliest token has a chance, and quotients overflow.
_COLDEST = 1e-30

# Probabilities held at once; more lines are drawn in several goes.
_MAX_PROBABILITIES = 2**24


@torch.no_grad()
def sample(
    model: MLP | reference.MLP,
    vocabulary: Vocabulary,
    n: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    prefix: str = "",
    seed: int = SAMPLE_SEED,
    max_length: int = 100,
    across: bool = False,
) -> list[str]:
    """Draw ``n`` lines, token by token, all lines at once.

    Line i depends on the model, the seed and i, not on ``n`` or the number of threads; on a GPU its
    draws are the same, from logits that are rounded otherwise.
    One line alone (``n=1``) is drawn by PyTorch's generator instead: it is the first one that the
    lecture's loop draws with the same seed.

    Args:
        model: its device does the work.
        vocabulary: of the model.
        n: number of lines.
        temperature: divides the logits; 0 takes the likeliest token each time.
        top_k: draw from the ``top_k`` likeliest tokens only; None is from all.
        prefix: what every line starts with.
        seed: of a generator of its own; the global one is not touched.
        max_length: tokens after which a line is cut, the prefix included.
        across: the lines are a text, one drawn after the other: the context of a line runs on from
            the lines before it, as models of running text were trained
            (`pymlp.data.DataConfig`). A line then depends on those before it.

    Returns:
        The lines, without the token that ends them.

    Raises:
        TypeError: ``model`` is of another kind, such as DDP, or an argument is not a number where
            one is expected.
        ValueError: an argument out of range, a prefix that the vocabulary cannot spell or that is
            longer than ``max_length``, a model of another vocabulary size, or one whose logits are
            not finite.
    """
    n = to_int("sample", "n", n, 0)
    max_length = to_int("sample", "max_length", max_length, 1)
    start = _check(model, vocabulary, prefix, max_length)
    temperature = to_float("sample", "temperature", temperature, least=0.0)
    top_k = None if top_k is None else to_int("sample", "top_k", top_k, 1)
    seed = to_int("sample", "seed", seed, 0, most=2**63 - 1)
    if n > 1 and not across and can_draw(model):
        temperature = 0.0 if temperature < _COLDEST else temperature
        lines = draw_ids(
            model,
            n,
            prefix=start,
            max_length=max_length,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
        )
        return vocabulary.decode_all(lines)
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    choose = partial(_choose, temperature=temperature, top_k=top_k, generator=generator)
    at_once = 1 if across else max(1, _MAX_PROBABILITIES // len(vocabulary))
    before: list[int] = []  # what the next line goes on from
    lines = []
    while len(lines) < n:
        lines += _draw(model, choose, before, start, min(at_once, n - len(lines)), max_length)
        if across:
            before = [*before, *lines[-1], 0][-model.config.block_size :]
    return vocabulary.decode_all(lines)


def _draw(
    model: MLP | reference.MLP,
    choose: Callable[[Tensor], Tensor],
    before: list[int],
    start: list[int],
    n: int,
    max_length: int,
) -> list[list[int]]:
    """Ids of ``n`` lines, each of which goes on from ``before`` and begins with ``start``."""
    block_size = model.config.block_size
    device = next(model.parameters()).device
    context = torch.tensor(([0] * block_size + before + start)[-block_size:], device=device)
    contexts = context.expand(n, -1)  # of the lines that have not ended
    rows = torch.arange(n, device=device)  # which lines these are
    columns = [torch.full((n,), token, device=device) for token in start]
    while len(rows) and len(columns) < max_length:
        following = choose(model(contexts))
        going_on = following != 0
        rows, following = rows[going_on], following[going_on]
        contexts = torch.cat([contexts[going_on, 1:], following[:, None]], dim=1)
        columns.append(
            torch.zeros(n, dtype=torch.int64, device=device).index_put((rows,), following)
        )
    return [_until_end(line) for line in torch.stack(columns, dim=1).tolist()]


def _choose(
    logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator
) -> Tensor:
    """One token (N,) for each row of ``logits`` (N, V)."""
    if not logits.amax(dim=1).isfinite().all():
        raise ValueError("sample: the model gives no probabilities: its logits are not finite")
    if temperature < _COLDEST:
        return logits.argmax(dim=1)
    if temperature != 1:
        logits = (logits - logits.amax(dim=1, keepdim=True)) / temperature
    if top_k is not None and top_k < logits.shape[1]:
        values, ids = logits.topk(top_k, dim=1)
        logits = torch.full_like(logits, -torch.inf).scatter(1, ids, values)
    return torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]


def _until_end(line: list[int]) -> list[int]:
    return line[: line.index(0)] if 0 in line else line


def _check(
    model: MLP | reference.MLP, vocabulary: Vocabulary, prefix: str, max_length: int
) -> list[int]:
    """The ids of ``prefix``, after a check that it, the model and the vocabulary fit."""
    check_model("sample", model)
    if model.config.vocab_size != len(vocabulary):
        raise ValueError(
            f"sample: the vocabulary has {len(vocabulary)} tokens, "
            f"the model {model.config.vocab_size}: give the vocabulary it was trained with"
        )
    try:
        start = vocabulary.encode(prefix)
    except ValueError as error:
        raise ValueError(f"sample: prefix {prefix!r}: {error}") from None
    if len(start) > max_length:
        raise ValueError(
            f"sample: prefix has {len(start)} tokens, more than max_length={max_length}"
        )
    return start


def membership(lines: Iterable[Line], data: Dataset) -> list[str]:
    """The split of each of ``lines``: the first of train, dev and test with it, or ``"new"``.

    Words that the vocabulary merges into "<unk>" are taken for the same.

    Args:
        lines: as `sample` returns them.
        data: with the vocabulary of the model.

    Raises:
        TypeError: as `pymlp.lines.as_lines`.
    """
    listed = as_lines(lines, "membership")
    wanted, ids = encode(listed, data.vocabulary), data.stream.ids.numpy()
    found = ["new"] * len(listed)
    spans = list(zip(data.sizes, data.begins, data.ends, strict=True))
    for name, begin, end in reversed(spans):
        for i, is_there in enumerate(_engine.find_lines(ids[begin:end], wanted)):
            found[i] = name if is_there else found[i]
    return found
