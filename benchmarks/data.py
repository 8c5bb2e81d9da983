"""Suite `data`: text to training data.

`examples`: all lines of the bundled names to a table of examples; `eager` is the lecture's
build_dataset, `pymlp` the native preparation; the vocabulary is made beforehand for both.
`load`: a file of a million words to ids and a vocabulary of those met more than 3 times; `eager` is
str.split, a Counter and a dict. The batch size of these rows is the number of lines, the time is
for all.
"""

import functools
import random
import tempfile
from collections import Counter
from itertools import chain
from pathlib import Path

import torch

from pymlp import reference
from pymlp.data import DataConfig, Examples, examples, load, names
from pymlp.vocabulary import UNKNOWN_WORD, WORD_BOUNDARY, Vocabulary

from .harness import Builder, Case, Suite, Task, Values

T = 3
WORD_LINES = 50_000
WORDS_A_LINE = 20
MIN_COUNT = 4


@functools.cache
def _lines() -> tuple[list[str], Vocabulary]:
    lines = names()
    return lines, Vocabulary.characters(lines)


def _examples_eager() -> Values:
    lines, vocabulary = _lines()
    return _values(Examples(*reference.examples(lines, vocabulary.ids, T)))


def _examples_pymlp() -> Values:
    lines, vocabulary = _lines()
    return _values(examples(lines, vocabulary, T))


def _values(made: Examples) -> Values:
    return {"tokens": made.tokens, "targets": made.targets}


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@functools.cache
def _word_file() -> Path:
    """Words of which few are frequent and many are rare, as in text."""
    path = Path(_directory().name, "words.txt")
    generator = random.Random(1)
    words = [
        f"{int(10 / (1 - generator.random()) ** 1.2):x}" for _ in range(WORD_LINES * WORDS_A_LINE)
    ]
    starts = range(0, len(words), WORDS_A_LINE)
    path.write_text("".join(" ".join(words[i : i + WORDS_A_LINE]) + "\n" for i in starts))
    return path


def _load_eager() -> Values:
    with open(_word_file(), encoding="utf-8") as file:
        lines = [line.split() for line in file]
    counts = Counter(chain.from_iterable(lines))
    kept = sorted([*(w for w, n in counts.items() if n >= MIN_COUNT), UNKNOWN_WORD])
    ids = {word: i for i, word in enumerate([WORD_BOUNDARY, *kept])}
    unknown = ids[UNKNOWN_WORD]
    stream = [i for line in lines for i in (*(ids.get(word, unknown) for word in line), 0)]
    return {"ids": torch.tensor(stream, dtype=torch.int32)}


def _load_pymlp() -> Values:
    split = f"{WORD_LINES * WORDS_A_LINE},0,rest"  # the text as it stands
    config = DataConfig(tokens="word", min_count=MIN_COUNT, split=split)
    return {"ids": load(_word_file(), T, config).stream.ids}


_RUNS = {
    ("examples", "eager"): _examples_eager,
    ("examples", "pymlp"): _examples_pymlp,
    ("load", "eager"): _load_eager,
    ("load", "pymlp"): _load_pymlp,
}


def _task(provider: str, case: Case) -> Task:
    run = _RUNS[case.op, provider]
    return Task(run, lambda: (run(), _truth(case.op)))


@functools.cache
def _truth(op: str) -> Values:
    return _RUNS[op, "eager"]()


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """Both, each for its whole file."""
    lines, vocabulary = _lines()
    shape = f"T={T} V={len(vocabulary)}"
    words = f"{WORDS_A_LINE} words a line"
    return [
        Case("data", "examples", "prepare", len(lines), shape),
        Case("data", "load", "prepare", WORD_LINES, words),
    ]


def builders(case: Case) -> dict[str, Builder]:
    """Plain Python and the native preparation."""
    return {name: functools.partial(_task, name) for name in ("eager", "pymlp")}


SUITE = Suite("data", cases, builders, tolerance=0.0)
