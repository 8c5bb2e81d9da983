"""Suite `score`: log-probabilities of lines, from text to numbers, microseconds a token.

All names under the lecture's model, and lines of words under one of the paper's sizes with random
parameters. `eager` makes the examples as the lecture does, runs the model on batches of 4,096 and
adds up by line; `pymlp` is `pymlp.score`, `unnormalized` the same without the sum over the
vocabulary, whose answer is another: logits. The batch size of these rows is the number of lines.
"""

import functools
import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pymlp import reference
from pymlp.data import Line, Vocabulary, names
from pymlp.model import MLP, MLPConfig
from pymlp.scoring import score

from .harness import Builder, Case, Suite, Task, Values
from .trained import shape, trained

B = 4096
WORDS = MLPConfig(17_905, 4, 30, 100)
WORDS_SHAPE = "T=4 E=30 H=100 V=17905"
N_LINES, LINE_LENGTH = 100, 20

# The score of each of targets (N,) by logits (N, V).
Rule = Callable[[Tensor, Tensor], Tensor]


class _Problem(NamedTuple):
    model: MLP
    vocabulary: Vocabulary
    lines: list[Line]

    @property
    def n_tokens(self) -> int:
        return sum(len(line) + 1 for line in self.lines)


@functools.cache
def _problem(op: str) -> _Problem:
    if op == "score":
        model, data = trained()
        return _Problem(model, data.vocabulary, list(names()))
    spellings = [f"w{i}" for i in range(1, WORDS.vocab_size)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MLP(WORDS)
    draw = random.Random(0)
    lines: list[Line] = [draw.choices(spellings, k=LINE_LENGTH) for _ in range(N_LINES)]
    return _Problem(model, Vocabulary.words([*lines, spellings]), lines)


def _log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    return -F.cross_entropy(logits, targets, reduction="none")


def _logits(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None])[:, 0]


@torch.no_grad()
def _plain(problem: _Problem, rule: Rule, dtype: torch.dtype = torch.float32) -> Tensor:
    model, vocabulary, lines = problem
    C, W1, b1, W2, b2 = (p.to(dtype) for p in model.parameters())
    X, Y = reference.examples(lines, vocabulary.ids, model.config.block_size)
    scores = []
    for Xb, Yb in zip(X.split(B), Y.split(B), strict=True):
        h = torch.tanh(C[Xb].view(len(Xb), -1) @ W1.T + b1)
        scores.append(rule(h @ W2.T + b2, Yb))
    lengths = torch.tensor([len(line) + 1 for line in lines])
    line_of = torch.repeat_interleave(torch.arange(len(lines)), lengths)
    return torch.zeros(len(lines), dtype=dtype).index_add(0, line_of, torch.cat(scores))


def _eager(case: Case) -> Task:
    problem = _problem(case.op)

    def check() -> tuple[Values, Values]:
        truth = _plain(problem, _log_probs, torch.float64)
        return {"log_prob": _plain(problem, _log_probs)}, {"log_prob": truth}

    return Task(lambda: _plain(problem, _log_probs), check, steps=problem.n_tokens)


def _pymlp(case: Case, normalized: bool = True) -> Task:
    problem = _problem(case.op)

    def run() -> list[float]:
        return [line.log_prob for line in score(*problem, normalized=normalized)]

    def check() -> tuple[Values, Values]:
        truth = _plain(problem, _log_probs if normalized else _logits, torch.float64)
        return {"log_prob": torch.tensor(run())}, {"log_prob": truth}

    return Task(run, check, steps=problem.n_tokens)


def _unnormalized(case: Case) -> Task:
    return _pymlp(case, normalized=False)


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """The file of names, and lines of words."""
    return [
        Case("score", "score", "forward", len(names()), shape()),
        Case("score", "score-words", "forward", N_LINES, WORDS_SHAPE),
    ]


def builders(case: Case) -> dict[str, Builder]:
    """Plain PyTorch and ours."""
    return {"eager": _eager, "pymlp": _pymlp, "unnormalized": _unnormalized}


SUITE = Suite("score", cases, builders, tolerance=1e-5)
