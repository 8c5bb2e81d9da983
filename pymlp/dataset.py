"""A corpus in three splits, its vocabulary, and how long contexts are: `Dataset`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

from pymlp.arguments import to_int
from pymlp.encoding import decode, encode_known
from pymlp.lines import SPLIT_SEED, Line, Report, Splits, learned_lines, report, split
from pymlp.streams import Examples, TokenStream
from pymlp.vocabulary import Vocabulary


class Ends(NamedTuple):
    """The positions of a stream where its three splits end; each begins where another ended."""

    train: int
    dev: int
    test: int


@dataclass(frozen=True, eq=False)
class Dataset:
    """A stream of tokens in three splits, and the vocabulary of its ids.

    Args:
        stream: train, then dev, then test.
        ends: where they end.
        vocabulary: of all three.
        block_size: length T of the contexts.
        n_empty: empty lines of the text, which were left out.
        origin: what `pymlp.data.load` made it from, the fields of a `DataConfig` and ``source``.

    Raises:
        TypeError: ``block_size`` is not an int.
        ValueError: ``block_size`` is below 1, or the ends do not ascend within the stream.
    """

    stream: TokenStream
    ends: Ends
    vocabulary: Vocabulary
    block_size: int
    n_empty: int = 0
    origin: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_size", to_int("Dataset", "block_size", self.block_size, 1))
        if not 0 <= self.ends.train <= self.ends.dev <= self.ends.test <= len(self.stream):
            raise ValueError(
                f"Dataset: the splits must end in order within the stream of {len(self.stream)} "
                f"tokens, got {tuple(self.ends)}"
            )

    @classmethod
    def from_lines(
        cls,
        lines: Iterable[Line],
        block_size: int = 3,
        split_seed: int = SPLIT_SEED,
        vocabulary: Vocabulary | None = None,
    ) -> Dataset:
        """Split the lines; without a `vocabulary`, make it from all of them, as the lecture does.

        Args:
            lines: strings for a model of characters, lists of words for one of words; whatever
                holds them in an order. Empty lines of an open file are left out.
            block_size: length T of the contexts, which begin where lines begin.
            split_seed: seed of the shuffle, see `split`.
            vocabulary: to use instead.

        Raises:
            TypeError: `lines` is one str, mixes strings and lists, or holds anything else.
            ValueError: there are no lines, a line holds a line break or a token that is not in the
                vocabulary; lines are counted from 1 in the order of the splits.
        """
        block_size = to_int("Dataset", "block_size", block_size, 1)
        given = learned_lines(lines, "Dataset")
        if not given:
            raise ValueError("Dataset: there are no lines to learn from")
        if vocabulary is None:
            of_characters = isinstance(given[0], str)
            vocabulary = (Vocabulary.characters if of_characters else Vocabulary.words)(given)
        made = cls.from_splits(split(given, split_seed), vocabulary, block_size)
        return replace(made, n_empty=given.n_empty)

    @classmethod
    def from_splits(cls, splits: Splits, vocabulary: Vocabulary, block_size: int = 3) -> Dataset:
        """The data set of lines that have been split already.

        Raises:
            TypeError, ValueError: as `from_lines`.
        """
        block_size = to_int("Dataset", "block_size", block_size, 1)
        if not isinstance(splits, Sequence) or isinstance(splits, str) or len(splits) != 3:
            raise TypeError(
                "Dataset: splits must be three lists of lines, train, dev and test, got "
                f"{repr(splits)[:40]}"
            )
        parts = [learned_lines(part, "Dataset") for part in splits]
        stream = encode_known(chain.from_iterable(parts), vocabulary)
        ends, end = [], 0
        for part in parts:
            end += sum(len(vocabulary.split(line)) for line in part) + len(part)
            ends.append(end)
        n_empty = sum(part.n_empty for part in parts)
        train, dev, test = ends
        return cls(stream, Ends(train, dev, test), vocabulary, block_size, n_empty)

    def __repr__(self) -> str:
        sizes = " / ".join(f"{size:,}" for size in self.sizes.values())
        return (
            f"Dataset({sizes} examples (train / dev / test), block_size {self.block_size}, "
            f"{self.vocabulary!r})"
        )

    @property
    def begins(self) -> Ends:
        """The positions where train, dev and test begin."""
        return Ends(0, self.ends.train, self.ends.dev)

    @property
    def sizes(self) -> dict[str, int]:
        """How many examples each split has."""
        spans = zip(Splits._fields, self.begins, self.ends, strict=True)
        return {name: end - begin for name, begin, end in spans}

    @cached_property
    def train(self) -> Examples:
        """Examples to learn from."""
        return self._examples(0)

    @cached_property
    def dev(self) -> Examples:
        """Examples to choose settings by."""
        return self._examples(1)

    @cached_property
    def test(self) -> Examples:
        """Examples kept for the end."""
        return self._examples(2)

    def _examples(self, part: int) -> Examples:
        return self.stream.examples(self.block_size, self.begins[part], self.ends[part])

    @cached_property
    def lines(self) -> Splits:
        """The text of the splits, line by line: str of characters, or lists of words."""
        ids = self.stream.ids.numpy()
        spans = zip(self.begins, self.ends, strict=True)
        return Splits(*(decode(ids[begin:end], self.vocabulary) for begin, end in spans))

    def report(self) -> Report:
        """Repeated lines, and lines of dev and test that train has too."""
        return report(self.lines)

    @property
    def digest(self) -> str:
        """SHA-256 of everything but the block size: tokens, splits, vocabulary, kind of context."""
        parts = (self.stream.digest, *self.ends, self.stream.reset, self.vocabulary.to_json())
        return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
