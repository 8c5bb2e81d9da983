"""Steps of a torch.optim optimizer that leave rows of an embedding alone, as its sparse ones do."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def sparse_step(optimizer: torch.optim.Optimizer, embedding: nn.Parameter, tokens: Tensor) -> None:
    """``optimizer.step()`` of which rows of the embedding that do not occur notice nothing.

    For rows that occur it is the dense rule, with its bias correction by the number of the step:
    what torch.optim.SparseAdam does, for any rule and with weight decay. It takes a dense step and
    puts the other rows back, which waits for no device.

    Args:
        optimizer: of the embedding among other parameters, whose state of it is of its shape.
        embedding: (V, E), with a gradient.
        tokens: ids of any shape, the rows that occur.
    """
    occurs = torch.zeros((len(embedding), 1), dtype=torch.bool, device=embedding.device)
    occurs[tokens.flatten()] = True
    before = {key: value.clone() for key, value in _rows(optimizer, embedding).items()}
    optimizer.step()
    for key, value in _rows(optimizer, embedding).items():
        # What the first step makes is zero before it.
        old = before.get(key, torch.zeros_like(value))
        value.copy_(torch.where(occurs, value, old))


def _rows(optimizer: torch.optim.Optimizer, embedding: nn.Parameter) -> dict[str, Tensor]:
    """The embedding, and what the optimizer keeps of each of its elements."""
    state = {
        key: value
        for key, value in optimizer.state[embedding].items()
        if isinstance(value, Tensor) and value.shape == embedding.shape
    }
    return {"parameter": embedding.detach(), **state}
