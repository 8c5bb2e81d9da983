"""Lines of text: reading them, splitting them, and counting what is repeated.

A line is one independent text, a name or a sentence: a str whose tokens are its characters, or a
list of words. Nothing here knows of ids.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from pymlp.text import iterate_lines

Line = Sequence[str]

SPLIT_SEED = 42


# --- reading --------------------------------------------------------------------------------------


class Lines(list[str]):
    """The lines of a file: a list of str that knows how many empty lines were skipped.

    Attributes:
        n_empty: number of empty lines left out.
    """

    def __init__(self, lines: Iterable[str] = (), n_empty: int = 0) -> None:
        super().__init__(lines)
        self.n_empty = n_empty


def read_lines(path: str | PathLike[str]) -> Lines:
    r"""The non-empty lines of a UTF-8 text file, plain or gzip.

    Lines end with "\n" or "\r\n"; a byte order mark at the start is dropped. Nothing else is
    changed: case and blanks are data.

    Raises:
        OSError: the file cannot be read (FileNotFoundError where there is none).
        ValueError: the file is not valid UTF-8; the message has the line and the byte. Or it is
            damaged gzip.
    """
    found = list(iterate_lines(path))
    lines = Lines(line for line in found if line)
    lines.n_empty = len(found) - len(lines)
    return lines


def read_words(path: str | PathLike[str]) -> list[list[str]]:
    """The lines of a UTF-8 text file as lists of words, separated by blanks; no list is empty.

    Raises:
        OSError, ValueError: as `read_lines`.
    """
    return [words for words in map(str.split, read_lines(path)) if words]


def names() -> Lines:
    """The bundled data: names given to US newborns of 2017, lower case, each once."""
    return read_lines(Path(__file__).with_name("names.txt"))


# --- splitting ------------------------------------------------------------------------------------


class Splits(NamedTuple):
    """Lines to learn from, to choose settings by, and to report at the very end."""

    train: list[Line]
    dev: list[Line]
    test: list[Line]


def split(
    lines: Sequence[Line], seed: int = SPLIT_SEED, fractions: tuple[float, float] = (0.8, 0.9)
) -> Splits:
    """Shuffle a copy of the lines with `random.Random(seed)` and cut it at the two fractions.

    Raises:
        ValueError: not 0 <= fractions[0] <= fractions[1] <= 1.
    """
    n1, n2 = cut_points(len(lines), fractions)
    shuffled = list(lines)
    random.Random(operator.index(seed)).shuffle(shuffled)
    return Splits(shuffled[:n1], shuffled[n1:n2], shuffled[n2:])


def cut_points(n_lines: int, fractions: tuple[float, float] = (0.8, 0.9)) -> tuple[int, int]:
    """How many of so many lines are train, and how many train and dev together.

    Raises:
        ValueError: as `split`.
    """
    first, second = fractions
    if not 0 <= first <= second <= 1:
        raise ValueError(f"split: fractions must ascend within 0 to 1, got {fractions}")
    return int(first * n_lines), int(second * n_lines)


# --- what is repeated -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlap:
    """How much of a split also stands in train, so that its loss is partly memory.

    Attributes:
        lines, n_lines: lines that train has too, of all lines of the split.
        positions, n_positions: examples of those lines, of all examples of the split.
    """

    lines: int
    n_lines: int
    positions: int
    n_positions: int


@dataclass(frozen=True)
class Report:
    """Repeated lines and leaks of a data set.

    Attributes:
        n_lines: number of lines.
        n_unique: number of different lines.
        dev, test: what these splits share with train.
    """

    n_lines: int
    n_unique: int
    dev: Overlap
    test: Overlap

    @property
    def n_repeated(self) -> int:
        """Lines that stand in the data already: n_lines - n_unique."""
        return self.n_lines - self.n_unique


def report(splits: Splits) -> Report:
    """Count repeated lines, and lines of dev and test that train has too."""
    train, dev, test = ([tuple(line) for line in lines] for lines in splits)
    known = set(train)
    return Report(
        n_lines=len(train) + len(dev) + len(test),
        n_unique=len(known.union(dev, test)),
        dev=_overlap(dev, known),
        test=_overlap(test, known),
    )


def _overlap(lines: list[tuple[str, ...]], known: set[tuple[str, ...]]) -> Overlap:
    shared = [line for line in lines if line in known]
    return Overlap(len(shared), len(lines), _positions(shared), _positions(lines))


def _positions(lines: list[tuple[str, ...]]) -> int:
    return sum(map(len, lines)) + len(lines)
