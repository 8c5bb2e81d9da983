"""What the embedding has learnt: the tokens nearest to a token."""

from __future__ import annotations

from typing import NamedTuple

import torch

from pymlp import reference
from pymlp.data import Vocabulary
from pymlp.model import MLP
from pymlp.plain import check_model


class Neighbour(NamedTuple):
    """A token, and the cosine of the angle between its embedding row and another's."""

    token: str
    similarity: float


@torch.no_grad()
def nearest(
    model: MLP | reference.MLP, vocabulary: Vocabulary, token: str, k: int = 10
) -> list[Neighbour]:
    """The ``k`` tokens whose embedding rows point most nearly in the direction of ``token``'s.

    Args:
        model: its embedding (V, E) is called with all ids.
        vocabulary: of the model.
        token: in the vocabulary; the boundary as the vocabulary spells it.
        k: how many; there are V - 1 at most.

    Returns:
        The nearest first, without ``token`` itself; a row of zeros has similarity 0 to all others.

    Raises:
        TypeError: ``model`` is of another kind, such as DDP.
        ValueError: ``token`` is not in the vocabulary, ``k`` is less than 1, or the vocabulary is
            of another size than the model's.
    """
    check_model("nearest", model)
    if model.config.vocab_size != len(vocabulary):
        raise ValueError(
            f"nearest: the vocabulary has {len(vocabulary)} tokens, the model "
            f"{model.config.vocab_size}: give the vocabulary it was trained with"
        )
    if k < 1:
        raise ValueError(f"nearest: k must be at least 1, got {k}")
    # Text comes before the boundary: a "." of the data is a token of its own.
    row = vocabulary.ids.get(token, 0)
    if row == 0 and token != vocabulary.tokens[0]:
        raise ValueError(f"nearest: {vocabulary.describe_missing(token)}")
    ids = torch.arange(len(vocabulary), device=next(model.embedding.parameters()).device)
    rows = torch.nn.functional.normalize(model.embedding(ids).double(), dim=1)
    similarities = rows @ rows[row]
    similarities[row] = -torch.inf
    found = similarities.topk(min(k, len(vocabulary) - 1))
    return [
        Neighbour(vocabulary.tokens[i], x)
        for i, x in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]
