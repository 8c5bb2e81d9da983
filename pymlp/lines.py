"""Lines of text: reading them, splitting them, and counting what is repeated.

A line is one independent text, a name or a sentence: a str whose tokens are its characters, or a
list of words. Nothing here knows of ids.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from pymlp.text import Readable, iterate_lines, without_end

Line = Sequence[str]

SPLIT_SEED = 42

NAMES = Path(__file__).with_name("names.txt")

_LINE_ENDS = ("\n", "\r\n")


# --- whatever holds lines -------------------------------------------------------------------------


def as_lines(lines: Iterable[Line], who: str) -> list[Line]:
    """The lines of whatever holds lines: a list, a generator, an open file, a column of a table.

    Args:
        lines: strings, or lists of strings. One line end behind a str is taken off, as of the lines
            of an open file.
        who: asks, for errors.

    Raises:
        TypeError: `lines` is one str, is no iterable, has no order or several columns, or holds
            anything else; the message has the place, from 0, and the value.
    """
    return _checked(_listed(lines, who), who)


def learned_lines(lines: Iterable[Line], who: str) -> Lines:
    """The same, of one kind, without the empty lines of a file, which `read_lines` leaves out, too.

    They are those that have nothing but a line end; "" is a line.

    Raises:
        TypeError: as `as_lines`, or strings and lists are mixed.
    """
    items = _listed(lines, who)
    kept = [item for item in items if not (isinstance(item, str) and item in _LINE_ENDS)]
    checked = _checked(kept, who)
    _check_one_kind(checked, who)
    return Lines(cast("list[str]", checked), len(items) - len(kept))


def _listed(lines: Iterable[Line], who: str) -> list[Any]:
    if isinstance(lines, (str, bytes)):
        kind = type(lines).__name__
        raise TypeError(f"{who}: lines must be a list of lines, got one {kind} {lines[:20]!r}")
    if isinstance(lines, (set, frozenset)):
        raise TypeError(f"{who}: the lines of a set have no order: pass sorted(lines)")
    if isinstance(lines, dict) or getattr(lines, "ndim", 1) != 1:
        raise TypeError(
            f"{who}: lines must be a list of lines, got a {type(lines).__name__}: pass one column"
        )
    if not hasattr(lines, "__iter__"):
        raise TypeError(f"{who}: lines must be a list of lines, got {_shown(lines)}")
    return list(lines)


def _checked(items: list[Any], who: str) -> list[Line]:
    """The items, strings without their line ends; TypeError for what is no line."""
    if not all(issubclass(kind, str) for kind in set(map(type, items))):
        for at, item in enumerate(items):
            if not isinstance(item, str):
                _check_words(item, f"{who}: lines[{at}]")
    with_end = any("\n" in line for line in items)
    return [without_end(x) if isinstance(x, str) else x for x in items] if with_end else items


def _check_words(item: Any, place: str) -> None:
    if not isinstance(item, Sequence) or isinstance(item, (bytes, bytearray, memoryview)):
        raise TypeError(f"{place} must be a str or a list of str, got {_shown(item)}")
    if not all(isinstance(word, str) for word in item):
        at = next(at for at, word in enumerate(item) if not isinstance(word, str))
        raise TypeError(f"{place}[{at}] must be a str, got {_shown(item[at])}")


def _check_one_kind(items: list[Line], who: str) -> None:
    of_str = [isinstance(item, str) for item in items]
    if len(set(of_str)) > 1:
        at = of_str.index(not of_str[0])
        raise TypeError(
            f"{who}: lines[{at}] must be a {'str' if of_str[0] else 'list of str'} as lines[0] is, "
            f"got {_shown(items[at])}"
        )


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {repr(value)[:40]}"


# --- reading --------------------------------------------------------------------------------------


class Lines(list[str]):
    """The lines of a file: a list of str that knows how many empty lines were skipped.

    Attributes:
        n_empty: number of empty lines left out.
    """

    def __init__(self, lines: Iterable[str] = (), n_empty: int = 0) -> None:
        super().__init__(lines)
        self.n_empty = n_empty


def read_lines(source: Readable) -> Lines:
    r"""The non-empty lines of UTF-8 text, plain or gzip: a path, or a file opened for bytes.

    Lines end with "\n" or "\r\n"; a byte order mark at the start is dropped. Nothing else is
    changed: case and blanks are data.

    Raises:
        OSError: the file cannot be read (FileNotFoundError where there is none).
        ValueError: the file is not valid UTF-8; the message has the line and the byte. Or it is
            damaged gzip.
    """
    found = list(iterate_lines(source))
    lines = Lines(line for line in found if line)
    lines.n_empty = len(found) - len(lines)
    return lines


def read_words(source: Readable) -> list[list[str]]:
    """The lines of UTF-8 text as lists of words, separated by blanks; no list is empty.

    Raises:
        OSError, ValueError: as `read_lines`.
    """
    return [words for words in map(str.split, read_lines(source)) if words]


def names() -> Lines:
    """The bundled data: names given to US newborns of 2017, lower case, each once."""
    return read_lines(NAMES)


# --- splitting ------------------------------------------------------------------------------------


class Splits(NamedTuple):
    """Lines to learn from, to choose settings by, and to report at the very end."""

    train: list[Line]
    dev: list[Line]
    test: list[Line]


def split(
    lines: Iterable[Line], seed: int = SPLIT_SEED, fractions: tuple[float, float] = (0.8, 0.9)
) -> Splits:
    """Shuffle a copy of the lines with `random.Random(seed)` and cut it at the two fractions.

    Raises:
        TypeError: as `as_lines`.
        ValueError: not 0 <= fractions[0] <= fractions[1] <= 1.
    """
    shuffled = as_lines(lines, "split")
    n1, n2 = cut_points(len(shuffled), fractions)
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
    """Count repeated lines, and lines of dev and test that train has too.

    Raises:
        TypeError: as `as_lines`, of a split.
    """
    train, dev, test = (list(map(tuple, as_lines(lines, "report"))) for lines in splits)
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
