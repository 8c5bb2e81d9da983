"""Suite `sample`: names drawn from a model, microseconds a name.

`eager` is the lecture's loop, one name after the other; `batched` draws all names at once with
PyTorch, as far as a person would go; `pymlp` is `pymlp.sample`. The batch size of these rows is the
number of names in a call, except for the loop, which is timed on a few of them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pymlp.sampling import sample

from .harness import Builder, Case, Suite, Task, Values
from .trained import T, shape, trained

N = 10_000
N_LOOP = 100
N_CHECKED = 3_000
SEED = 2147483647 + 10
LONGEST = 100


def _logits(contexts: Tensor) -> Tensor:
    model, _ = trained()
    C, W1, b1, W2, b2 = model.parameters()
    h = torch.tanh(C[contexts].view(len(contexts), -1) @ W1.T + b1)
    return h @ W2.T + b2


@torch.no_grad()
def _loop(n: int) -> list[str]:
    """The lecture's cell."""
    _, data = trained()
    g = torch.Generator().manual_seed(SEED)
    lines = []
    for _ in range(n):
        out, context = [], [0] * T
        while True:
            probs = F.softmax(_logits(torch.tensor([context])), dim=1)
            ix = int(torch.multinomial(probs, num_samples=1, generator=g).item())
            if ix == 0 or len(out) == LONGEST:
                break
            context = [*context[1:], ix]
            out.append(ix)
        lines.append("".join(data.vocabulary.tokens[i] for i in out))
    return lines


@torch.no_grad()
def _batched(n: int) -> list[str]:
    _, data = trained()
    g = torch.Generator().manual_seed(SEED)
    contexts = torch.zeros((n, T), dtype=torch.int64)
    columns = []
    ended = torch.zeros(n, dtype=torch.bool)
    while len(columns) < LONGEST and not bool(ended.all()):
        probs = F.softmax(_logits(contexts), dim=1)
        ix = torch.multinomial(probs, num_samples=1, generator=g)[:, 0].masked_fill(ended, 0)
        ended |= ix == 0
        contexts = torch.cat([contexts[:, 1:], ix[:, None]], dim=1)
        columns.append(ix)
    tokens = data.vocabulary.tokens
    rows = torch.stack(columns, dim=1).tolist()
    return ["".join(tokens[i] for i in row if i) for row in rows]


def _pymlp(n: int) -> list[str]:
    model, data = trained()
    return sample(model, data.vocabulary, n)


def _frequencies(lines: list[str]) -> Values:
    """How often each token comes first."""
    _, data = trained()
    first = torch.tensor([data.vocabulary.ids[line[0]] if line else 0 for line in lines])
    counts = torch.bincount(first, minlength=len(data.vocabulary))
    return {"first": counts.double() / len(lines)}


@torch.no_grad()
def _truth() -> Values:
    return {"first": F.softmax(_logits(torch.zeros((1, T), dtype=torch.int64)), dim=1)[0].double()}


def _builder(draw, n: int, checked: int) -> Builder:
    return lambda case: Task(
        lambda: draw(n), lambda: (_frequencies(draw(checked)), _truth()), steps=n
    )


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """One case: many names."""
    return [Case("sample", "sample", "forward", N, shape())]


def builders(case: Case) -> dict[str, Builder]:
    """The lecture's loop, a batch in PyTorch, and ours."""
    return {
        "eager": _builder(_loop, N_LOOP, N_CHECKED),
        "batched": _builder(_batched, N, N_CHECKED),
        "pymlp": _builder(_pymlp, N, N_CHECKED),
    }


# Frequencies of 3,000 draws: the most likely first letter has 13%, four standard deviations 2.5%.
SUITE = Suite("sample", cases, builders, tolerance=0.25)
