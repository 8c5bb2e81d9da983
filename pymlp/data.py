"""From lines to training examples: encoding, context windows, data sets.

Semantics are those of the lecture; the work on every character and every example is native. This
module is the public face of `pymlp.lines` and `pymlp.vocabulary` too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pymlp import _engine
from pymlp.lines import (
    SPLIT_SEED,
    Line,
    Lines,
    Overlap,
    Report,
    Splits,
    names,
    read_lines,
    read_words,
    report,
    split,
)
from pymlp.vocabulary import Vocabulary, join_characters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Encoded = tuple[NDArray[np.int32], NDArray[np.int64]]

__all__ = [
    "Dataset",
    "Examples",
    "Line",
    "Lines",
    "Overlap",
    "Report",
    "Splits",
    "Vocabulary",
    "encode",
    "examples",
    "names",
    "read_lines",
    "read_words",
    "report",
    "split",
]


@dataclass(frozen=True, eq=False)
class Examples:
    """Contexts and what follows them.

    Args:
        tokens: (N, T) int64 or int32 ids.
        targets: (N,) ids of the same dtype.

    Raises:
        ValueError: shapes or dtypes differ from these.
    """

    tokens: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        shapes = tuple(self.tokens.shape), tuple(self.targets.shape)
        if self.tokens.dim() != 2 or shapes[1] != shapes[0][:1]:
            raise ValueError(f"Examples: expected shapes (N, T) and (N,), got {shapes}")
        dtypes = self.tokens.dtype, self.targets.dtype
        if dtypes[0] != dtypes[1] or dtypes[0] not in (torch.int64, torch.int32):
            raise ValueError(f"Examples: expected two of int64 or two of int32, got {dtypes}")

    def __len__(self) -> int:
        """Number N of examples."""
        return len(self.targets)


def examples(lines: Sequence[Line], vocabulary: Vocabulary, block_size: int) -> Examples:
    """Slide a window of `block_size` ids over every line.

    A line of n tokens makes n + 1 examples: every token after the `block_size` before it, and the
    terminator after the last ones. What lies before a line reads as terminators. Errors count the
    given lines from 1.
    Equivalent to: `pymlp.reference.examples(lines, vocabulary.ids, block_size)`.

    Returns:
        tokens (N, T) and targets (N,), int64, in the order of the lines.

    Raises:
        TypeError: the lines are not strings or, for a vocabulary of words, lists of strings.
        ValueError: a token is not in the vocabulary, a line holds a line break, or `block_size` is
            below 1.
    """
    ids, starts = encode(lines, vocabulary)
    missing = ids < 0
    if missing.any():
        at = int(missing.argmax())
        line = int(np.searchsorted(starts, at, side="right")) - 1
        token = vocabulary.split(lines[line])[at - int(starts[line])]
        raise ValueError(f"examples: line {line + 1}: {vocabulary.describe_missing(token)}")
    tokens, targets = _engine.make_examples(ids, starts, block_size)
    return Examples(torch.from_numpy(tokens), torch.from_numpy(targets))


def encode(lines: Sequence[Line], vocabulary: Vocabulary) -> _Encoded:
    """Ids (int32) of the tokens of all lines, -1 for what the vocabulary lacks; and where each line
    starts (int64), with the number of ids at the end.

    Raises:
        TypeError, ValueError: as `examples`.
    """
    _check_list(lines)
    return (_encode_words if vocabulary.separator else _encode_characters)(lines, vocabulary)


def _check_list(lines: Sequence[Line]) -> None:
    if isinstance(lines, str):
        raise TypeError(f"lines must be a list of lines, got one str {lines[:20]!r}")


def _encode_characters(lines: Sequence[Line], vocabulary: Vocabulary) -> _Encoded:
    """Ids of all characters and where each line starts; -1 for what the vocabulary lacks."""
    if not lines:
        return np.zeros(0, np.int32), np.zeros(1, np.int64)
    code_points = [ord(token) for token in vocabulary.tokens[1:]]
    ids, starts = _engine.encode(join_characters(lines), code_points)
    if len(starts) != len(lines) + 1:
        number = next(i for i, line in enumerate(lines, 1) if "\n" in line)
        raise ValueError(f"examples: line {number} holds a line break; read_lines splits there")
    return ids, starts


def _encode_words(lines: Sequence[Line], vocabulary: Vocabulary) -> _Encoded:
    """The same for words, which are looked up whole."""
    lines = [vocabulary.split(line) for line in lines]
    starts = np.zeros(len(lines) + 1, np.int64)
    np.cumsum([len(words) for words in lines], out=starts[1:])
    unknown = -1 if vocabulary.unknown is None else vocabulary.ids[vocabulary.unknown]
    found = map(vocabulary.ids.get, chain.from_iterable(lines), repeat(unknown))
    return np.fromiter(found, np.int32, count=int(starts[-1])), starts


@dataclass(frozen=True, eq=False)
class Dataset:
    """Lines in three splits, their vocabulary, and examples made when first asked for.

    Args:
        lines: the three splits.
        vocabulary: covers all three.
        block_size: length T of the contexts.
    """

    lines: Splits
    vocabulary: Vocabulary
    block_size: int

    @classmethod
    def from_lines(
        cls,
        lines: Sequence[Line],
        block_size: int = 3,
        split_seed: int = SPLIT_SEED,
        vocabulary: Vocabulary | None = None,
    ) -> Dataset:
        """Split the lines; without a `vocabulary`, make it from all of them, as the lecture does.

        Args:
            lines: strings for a model of characters, lists of words for one of words.
            block_size: length T of the contexts.
            split_seed: seed of the shuffle, see `split`.
            vocabulary: to use instead.

        Raises:
            TypeError: `lines` is one str, or mixes strings and lists.
            ValueError: there are no lines.
        """
        _check_list(lines)
        if len(lines) == 0:
            raise ValueError("Dataset: there are no lines to learn from")
        if vocabulary is None:
            of_characters = isinstance(lines[0], str)
            vocabulary = (Vocabulary.characters if of_characters else Vocabulary.words)(lines)
        if vocabulary.separator:
            lines = [vocabulary.split(line) for line in lines]
        return cls(split(lines, split_seed), vocabulary, block_size)

    @cached_property
    def train(self) -> Examples:
        """Examples of the lines to learn from."""
        return examples(self.lines.train, self.vocabulary, self.block_size)

    @cached_property
    def dev(self) -> Examples:
        """Examples of the lines to choose settings by."""
        return examples(self.lines.dev, self.vocabulary, self.block_size)

    @cached_property
    def test(self) -> Examples:
        """Examples of the lines kept for the end."""
        return examples(self.lines.test, self.vocabulary, self.block_size)

    def report(self) -> Report:
        """Repeated lines, and lines of dev and test that train has too."""
        return report(self.lines)
