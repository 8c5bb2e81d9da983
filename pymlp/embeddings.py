"""The tokens nearest to a token in the embedding that a model has learnt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, overload

import torch
from torch import Tensor

from pymlp import reference
from pymlp.arguments import to_int
from pymlp.data import Vocabulary
from pymlp.model import MLP
from pymlp.plain import check_model


class Neighbour(NamedTuple):
    """A token, and the cosine of the angle between its embedding row and another's."""

    token: str
    similarity: float


@overload
def nearest(
    model: MLP | reference.MLP, vocabulary: Vocabulary, tokens: str, k: int = 10
) -> list[Neighbour]: ...
@overload
def nearest(
    model: MLP | reference.MLP,
    vocabulary: Vocabulary,
    tokens: list[str] | tuple[str, ...],
    k: int = 10,
) -> list[list[Neighbour]]: ...
@torch.no_grad()
def nearest(
    model: MLP | reference.MLP, vocabulary: Vocabulary, tokens: str | Iterable[str], k: int = 10
) -> list[Neighbour] | list[list[Neighbour]]:
    """The ``k`` tokens whose embedding rows point most nearly in the direction of a token's.

    Args:
        model: its embedding (V, E) is called with all ids.
        vocabulary: of the model.
        tokens: one token of the vocabulary, or several, as a list or another iterable; the
            boundary as the vocabulary spells it.
        k: number of neighbours; there are V - 1 at most.

    Returns:
        For one token its neighbours, the nearest first, without the token itself; for several
        tokens one such list each. A row of zeros has similarity 0 to all others.

    Raises:
        TypeError: ``model`` is of another kind, such as DDP; a token is not a str, or ``k`` is not
            an int.
        ValueError: a token is not in the vocabulary, ``k`` is less than 1, or the vocabulary is
            of another size than the model's.
    """
    check_model("nearest", model)
    if model.config.vocab_size != len(vocabulary):
        raise ValueError(
            f"nearest: the vocabulary has {len(vocabulary)} tokens, the model "
            f"{model.config.vocab_size}: give the vocabulary it was trained with"
        )
    k = min(to_int("nearest", "k", k, 1), len(vocabulary) - 1)
    ids = torch.arange(len(vocabulary), device=next(model.embedding.parameters()).device)
    rows = torch.nn.functional.normalize(model.embedding(ids).double(), dim=1)
    if isinstance(tokens, str):
        return _neighbours(rows, vocabulary, _row(vocabulary, tokens), k)
    if not isinstance(tokens, Iterable):
        raise TypeError(f"nearest: tokens must be a str or a list of str, got {tokens!r:.40}")
    wanted = [_row(vocabulary, token) for token in tokens]
    return [_neighbours(rows, vocabulary, row, k) for row in wanted]


def _row(vocabulary: Vocabulary, token: str) -> int:
    if not isinstance(token, str):
        raise TypeError(f"nearest: a token must be a str, got {token!r}")
    # Text comes before the boundary: a "." of the data is a token of its own.
    row = vocabulary.ids.get(token, 0)
    if row == 0 and token != vocabulary.tokens[0]:
        raise ValueError(f"nearest: {vocabulary.describe_missing(token)}")
    return row


def _neighbours(rows: Tensor, vocabulary: Vocabulary, row: int, k: int) -> list[Neighbour]:
    similarities = rows @ rows[row]
    similarities[row] = -torch.inf
    found = similarities.topk(k)
    return [
        Neighbour(vocabulary.tokens[i], x)
        for i, x in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]
