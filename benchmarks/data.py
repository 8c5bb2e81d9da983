"""Suite `data`: all lines of the bundled names to training examples.

`eager` is the lecture's build_dataset, `pymlp` the native preparation; the vocabulary is made
beforehand for both. The batch size of these rows is the number of lines, the time is for all.
"""

import functools

from pymlp import reference
from pymlp.data import Examples, examples, names
from pymlp.vocabulary import Vocabulary

from .harness import Builder, Case, Suite, Task, Values

T = 3


@functools.cache
def _lines() -> tuple[list[str], Vocabulary]:
    lines = names()
    return lines, Vocabulary.characters(lines)


def _eager(case: Case) -> Task:
    lines, vocabulary = _lines()

    def run() -> Examples:
        return Examples(*reference.examples(lines, vocabulary.ids, T))

    return Task(run, lambda: (_values(run()), _truth()))


def _pymlp(case: Case) -> Task:
    lines, vocabulary = _lines()

    def run() -> Examples:
        return examples(lines, vocabulary, T)

    return Task(run, lambda: (_values(run()), _truth()))


def _values(made: Examples) -> Values:
    return {"tokens": made.tokens, "targets": made.targets}


@functools.cache
def _truth() -> Values:
    lines, vocabulary = _lines()
    return _values(Examples(*reference.examples(lines, vocabulary.ids, T)))


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """One case: the whole file."""
    lines, vocabulary = _lines()
    return [Case("data", "examples", "prepare", len(lines), f"T={T} V={len(vocabulary)}")]


def builders(case: Case) -> dict[str, Builder]:
    """The lecture's loop and the native preparation."""
    return {"eager": _eager, "pymlp": _pymlp}


SUITE = Suite("data", cases, builders, tolerance=0.0)
