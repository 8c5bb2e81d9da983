"""Suite `score`: log-probabilities of all names, from text to numbers, microseconds a token.

`eager` makes the examples as the lecture does, runs the model on batches of 4,096 and adds up by
line; `pymlp` is `pymlp.score`. The batch size of these rows is the number of lines.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pymlp import reference
from pymlp.data import names
from pymlp.scoring import score

from .harness import Builder, Case, Suite, Task, Values
from .trained import T, shape, trained

B = 4096


@torch.no_grad()
def _plain(lines: list[str], dtype: torch.dtype = torch.float32) -> Tensor:
    model, data = trained()
    C, W1, b1, W2, b2 = (p.to(dtype) for p in model.parameters())
    X, Y = reference.examples(lines, data.vocabulary.ids, T)
    losses = []
    for Xb, Yb in zip(X.split(B), Y.split(B), strict=True):
        h = torch.tanh(C[Xb].view(len(Xb), -1) @ W1.T + b1)
        losses.append(F.cross_entropy(h @ W2.T + b2, Yb, reduction="none"))
    lengths = torch.tensor([len(line) + 1 for line in lines])
    line_of = torch.repeat_interleave(torch.arange(len(lines)), lengths)
    return torch.zeros(len(lines), dtype=dtype).index_add(0, line_of, -torch.cat(losses))


def _tokens() -> int:
    return sum(len(line) + 1 for line in names())


def _truth() -> Values:
    return {"log_prob": _plain(names(), torch.float64)}


def _eager(case: Case) -> Task:
    lines = names()
    return Task(
        lambda: _plain(lines), lambda: ({"log_prob": _plain(lines)}, _truth()), steps=_tokens()
    )


def _pymlp(case: Case) -> Task:
    model, data = trained()
    lines = names()

    def check() -> tuple[Values, Values]:
        found = [line.log_prob for line in score(model, data.vocabulary, lines)]
        return {"log_prob": torch.tensor(found)}, _truth()

    return Task(lambda: score(model, data.vocabulary, lines), check, steps=_tokens())


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """One case: the whole file."""
    return [Case("score", "score", "forward", len(names()), shape())]


def builders(case: Case) -> dict[str, Builder]:
    """Plain PyTorch and ours."""
    return {"eager": _eager, "pymlp": _pymlp}


SUITE = Suite("score", cases, builders, tolerance=1e-5)
