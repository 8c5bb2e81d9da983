"""Steps of a torch.optim optimizer that leave rows of a parameter alone, as its sparse ones do."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def sparse_step(optimizer: torch.optim.Optimizer, rows: Mapping[nn.Parameter, Tensor]) -> None:
    """``optimizer.step()`` of which other rows of some parameters notice nothing.

    For the rows given it is the dense rule, with its bias correction by the number of the step:
    what torch.optim.SparseAdam does, for any rule and with weight decay. It takes a dense step and
    puts the other rows back. An interruption meanwhile leaves it half done, as it does one of
    torch.optim.

    Args:
        optimizer: of these parameters among others, whose state of them is of their shape.
        rows: ids (n,), by parameter (V, ...), which has a gradient.
    """
    before = {
        parameter: {key: value.clone() for key, value in _elements(optimizer, parameter).items()}
        for parameter in rows
    }
    optimizer.step()
    for parameter, ids in rows.items():
        occurs = torch.zeros(len(parameter), dtype=torch.bool, device=parameter.device)
        occurs[ids] = True
        occurs = occurs.view(-1, *[1] * (parameter.dim() - 1))
        for key, value in _elements(optimizer, parameter).items():
            # State that the first step makes is zero before it.
            old = before[parameter].get(key)
            value.copy_(torch.where(occurs, value, 0.0 if old is None else old))


def _elements(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """The parameter, and what the optimizer keeps of each of its elements."""
    state = {
        key: value
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    }
    return {"parameter": parameter.detach(), **state}
