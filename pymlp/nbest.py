"""Rescoring of n-best lists in the convention of Moses: lines ``id ||| text ||| ... ||| score``.

The lines of one list follow each other and share an id. What stands between text and score is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import NamedTuple

from pymlp import reference
from pymlp.data import Vocabulary
from pymlp.model import MLP
from pymlp.scoring import score

_SEPARATOR = "|||"
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LINES_AT_ONCE = 10_000


@dataclass(frozen=True)
class Hypothesis:
    """One line of an n-best list.

    Attributes:
        line: as it was read.
        id: of the list.
        text: to be scored.
        score: that of whoever made the list, finite.
    """

    line: str
    id: str
    text: str
    score: float


class Rescored(NamedTuple):
    """A hypothesis, the log-probability of its text in nats, and score + weight * log_prob."""

    hypothesis: Hypothesis
    log_prob: float
    combined: float


def parse(lines: Iterable[str]) -> Iterator[Hypothesis]:
    """The hypotheses of lines; empty lines are passed over.

    Raises:
        TypeError: a line is no str.
        ValueError: a line is not ``id ||| text ||| ... ||| score`` with a finite decimal number for
            a score; lines are counted from 1.
    """
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            raise TypeError(f"n-best line {number} must be a str, got {type(line).__name__}")
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        name, *rest = (field.strip() for field in line.split(_SEPARATOR))
        total = float(rest[-1]) if rest and _DECIMAL.fullmatch(rest[-1]) else math.nan
        if len(rest) < 2 or not math.isfinite(total):
            raise ValueError(
                f"n-best line {number}: expected 'id ||| text ||| ... ||| score' with a finite "
                f"decimal number at the end, got {_shortened(line)!r}"
            )
        yield Hypothesis(line, name, rest[0], total)


def _shortened(line: str) -> str:
    """The two ends of a line, where its id and its score stand."""
    return line if len(line) <= 80 else f"{line[:40]} ... {line[-35:]}"


def rescore(
    model: MLP | reference.MLP,
    vocabulary: Vocabulary,
    hypotheses: Iterable[Hypothesis],
    weight: float = 1.0,
    *,
    normalized: bool = True,
) -> Iterator[Rescored]:
    """The hypotheses with their log-probabilities and combined scores, in the same order.

    Args:
        model: on any device.
        vocabulary: of the model.
        hypotheses: as `parse` gives them; thousands are read ahead.
        weight: of the log-probability, finite.
        normalized: as in `pymlp.score`.

    Raises:
        ValueError: as `pymlp.score`; ``weight`` is not finite, or a combined score is not a number,
            as that of a model whose parameters are not finite.
    """
    if not math.isfinite(weight):
        raise ValueError(f"rescore: weight must be finite, got {weight}")
    rest = iter(hypotheses)
    while block := list(islice(rest, _LINES_AT_ONCE)):
        texts = [hypothesis.text for hypothesis in block]
        found = score(model, vocabulary, texts, normalized=normalized)
        for hypothesis, (log_prob, *_) in zip(block, found, strict=True):
            combined = hypothesis.score + weight * log_prob
            if math.isnan(combined):  # neither more nor less than the others
                raise ValueError(
                    f"rescore: the log-probability of {hypothesis.text[:80]!r} is {log_prob}: "
                    f"with weight={weight:g} that is no score; are the model's parameters finite?"
                )
            yield Rescored(hypothesis, log_prob, combined)


def best(rescored: Iterable[Rescored]) -> Iterator[Rescored]:
    """The hypothesis of each list with the highest combined score, the first of equals."""
    for _, group in groupby(rescored, key=lambda found: found.hypothesis.id):
        yield max(group, key=lambda found: found.combined)
