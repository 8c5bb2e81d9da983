"""Suite `eval`: the exact loss over all training examples of the bundled names.

`eager` is the lecture's forward pass on all of them under no_grad, `pymlp` is `pymlp.evaluate`. The
batch size of these rows is the number of examples, the time is for all.
"""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from pymlp.evaluate import evaluate

from .harness import Builder, Case, Suite, Task, Values
from .trained import shape, trained


@functools.cache
def _table() -> tuple[Tensor, Tensor]:
    """The lecture keeps its examples as a table."""
    data = trained()[1]
    return data.train.tokens, data.train.targets


@torch.no_grad()
def _lecture_loss(dtype: torch.dtype = torch.float32) -> Tensor:
    model, _ = trained()
    tokens, targets = _table()
    C, W1, b1, W2, b2 = (p.to(dtype) for p in model.parameters())
    emb = C[tokens]
    h = torch.tanh(emb.view(len(emb), -1) @ W1.T + b1)
    return F.cross_entropy(h @ W2.T + b2, targets)


def _truth() -> Values:
    return {"loss": _lecture_loss(torch.float64)}


def _eager(case: Case) -> Task:
    return Task(_lecture_loss, lambda: ({"loss": _lecture_loss()}, _truth()))


def _pymlp(case: Case) -> Task:
    model, data = trained()

    def run() -> float:
        return evaluate(model, data.train)

    return Task(run, lambda: ({"loss": torch.tensor(run())}, _truth()))


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """One case: the whole split."""
    return [Case("eval", "evaluate", "forward", len(trained()[1].train), shape())]


def builders(case: Case) -> dict[str, Builder]:
    """The lecture's way and ours."""
    return {"eager": _eager, "pymlp": _pymlp}


SUITE = Suite("eval", cases, builders, tolerance=2e-6)
