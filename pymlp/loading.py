"""From a file to a data set: `load`, and the record of how it was done, `DataConfig`."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from pymlp import _engine
from pymlp.arguments import to_int
from pymlp.dataset import Dataset, Ends
from pymlp.lines import SPLIT_SEED, cut_points
from pymlp.streams import TokenStream
from pymlp.text import read_numbers
from pymlp.token_file import (
    add_counts,
    check_kind,
    check_not_empty,
    is_token_file,
    open_token_file,
)
from pymlp.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids = NDArray[np.int32]

SHUFFLED = "lines"

# What a token file has decided already.
_PREPARED = ("lowercase", "min_count", "vocab_size", "vocab_from")


@dataclass(frozen=True)
class DataConfig:
    """How a file becomes a data set.

    Args:
        tokens: ``"char"`` (code points, as in the lecture) or ``"word"`` (what white space
            separates, one sentence a line). None is "char", or what a token file holds.
        lowercase, min_count, vocab_size: as in `Vocabulary.from_counts`.
        vocab_from: ``"all"`` counts the words of the whole text, as Bengio et al. (2003) did;
            ``"train"`` those of train alone.
        split: ``"lines"`` shuffles the lines with seed 42 and cuts them at 80% and 90%, as in the
            lecture. ``"800000,200000,rest"`` cuts the text as it stands into so many tokens each;
            boundaries do not count, the line end after a split's last token belongs to it, and a
            cut may fall within a line.
        context: ``"reset"`` begins a context where its line begins, ``"across"`` lets it run on
            from the lines before. None is "across" for words cut as they stand, as in Bengio et
            al. (2003), and else "reset": after a shuffle the line before says nothing.

    Raises:
        ValueError: a value is none of these.
    """

    tokens: str | None = None
    lowercase: bool = False
    min_count: int = 1
    vocab_size: int | None = None
    vocab_from: str = "all"
    split: str = SHUFFLED
    context: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "min_count", to_int("DataConfig", "min_count", self.min_count, 1))
        if self.vocab_size is not None:
            vocab_size = to_int("DataConfig", "vocab_size", self.vocab_size, 0)
            object.__setattr__(self, "vocab_size", vocab_size)
        if self.tokens is not None:
            check_kind(self.tokens)
        for name, known in (("vocab_from", ("all", "train")), ("context", ("reset", "across"))):
            value = getattr(self, name)
            if value not in known and not (value is None and name == "context"):
                raise ValueError(f"{name} must be {known[0]!r} or {known[1]!r}, got {value!r}")
        self.sizes()

    def resets(self, of_words: bool) -> bool:
        """Whether contexts begin where their lines begin, for a vocabulary of words or not."""
        runs_on = of_words and self.sizes() is not None
        return (self.context or ("across" if runs_on else "reset")) == "reset"

    def sizes(self) -> tuple[int | None, ...] | None:
        """Tokens of train, dev and test, None for the rest; None where lines are shuffled."""
        if self.split == SHUFFLED:
            return None
        *counts, last = self.split.split(",")
        try:
            sizes = (*map(int, counts), None if last == "rest" else int(last))
            if len(sizes) == 3 and all(size is None or size >= 0 for size in sizes):
                return sizes
        except ValueError:
            pass
        raise ValueError(
            f"split must be {SHUFFLED!r} or numbers of tokens such as '800000,200000,rest', got "
            f"{self.split!r}"
        )


class _Text(NamedTuple):
    """A text in memory, as numbers; number i + 1 is spelled ``spellings[i]``."""

    numbers: Ids
    spellings: list[str]
    n_lines: int
    n_empty: int


def load(
    path: str | os.PathLike[str], block_size: int = 3, config: DataConfig | None = None
) -> Dataset:
    """The data set of a text file, plain or gzip, or of a token file.

    A token file that is not shuffled stays on disk, mapped into memory.

    Args:
        path: UTF-8 text, one line for each sentence or name; or what `prepare` wrote.
        block_size: length T of the contexts.
        config: default ``DataConfig()``.

    Raises:
        OSError: the file cannot be read.
        ValueError: the text is empty, not UTF-8 or damaged gzip, or shorter than the split wants; a
            token file is cut short, or prepared otherwise than ``config`` says.
    """
    config = config or DataConfig()
    try:
        if is_token_file(path):
            data = _load_token_file(path, block_size, config)
        else:
            data = _load_text(path, block_size, config)
    except ValueError as error:
        named = str(error).startswith(os.fspath(path))
        raise ValueError(str(error) if named else f"{os.fspath(path)}: {error}") from None
    origin = {"source": os.path.abspath(path), **asdict(config)}
    return replace(data, origin=origin)


def _load_text(path: str | os.PathLike[str], block_size: int, config: DataConfig) -> Dataset:
    of_words = config.tokens == "word"
    text = _read(path, of_words)
    numbers, ends = _split(text.numbers, text.n_lines, config)
    counted = numbers[: ends.train] if config.vocab_from == "train" else numbers
    vocabulary, ids = Vocabulary.from_counts(
        text.spellings,
        add_counts(np.zeros(len(text.spellings) + 1, np.int64), counted)[1:].tolist(),
        separator=" " if of_words else "",
        lowercase=config.lowercase,
        min_count=config.min_count,
        vocab_size=config.vocab_size,
        is_open=config.vocab_from == "train",
    )
    stream = _stream(ids[numbers], vocabulary, config)
    return Dataset(stream, ends, vocabulary, block_size, text.n_empty)


def _read(path: str | os.PathLike[str], of_words: bool) -> _Text:
    reader = _engine.TextReader(of_words)
    numbers = np.concatenate(list(read_numbers(path, reader)))
    check_not_empty(path, reader.n_lines)
    return _Text(numbers, reader.spellings(), reader.n_lines, reader.n_empty)


def _load_token_file(path: str | os.PathLike[str], block_size: int, config: DataConfig) -> Dataset:
    stream, prepared = open_token_file(path)
    vocabulary = prepared.vocabulary
    kind = "word" if vocabulary.separator else "char"
    for name in _PREPARED:
        if getattr(config, name) != getattr(DataConfig(), name):
            raise ValueError(
                f"{name} is for texts, this is a token file, whose vocabulary is decided: "
                "say it to pymlp prepare"
            )
    if config.tokens not in (None, kind):
        raise ValueError(f"the token file holds tokens of kind {kind!r}, not {config.tokens!r}")
    config = replace(config, tokens=kind)
    ids, ends = _split(stream.ids.numpy(), prepared.n_lines, config)
    digest = stream.known_digest if config.sizes() is not None else None
    shuffled = _stream(ids, vocabulary, config)
    return Dataset(
        replace(shuffled, known_digest=digest), ends, vocabulary, block_size, prepared.n_empty
    )


def _stream(ids: Ids, vocabulary: Vocabulary, config: DataConfig) -> TokenStream:
    resets = config.resets(of_words=bool(vocabulary.separator))
    return TokenStream(torch.from_numpy(ids), resets, len(vocabulary))


# --- splitting ------------------------------------------------------------------------------------


def _split(ids: Ids, n_lines: int, config: DataConfig) -> tuple[Ids, Ends]:
    """A stream with its splits one after the other, and where they end."""
    sizes = config.sizes()
    if sizes is not None:
        return ids, _cut(ids, len(ids) - n_lines, sizes)
    order = list(range(n_lines))
    random.Random(SPLIT_SEED).shuffle(order)
    shuffled, ends = _reorder(ids, np.array(order))
    first, second = cut_points(n_lines)
    of_lines = [0, *ends.tolist()]
    return shuffled, Ends(of_lines[first], of_lines[second], len(ids))


def _reorder(ids: Ids, order: NDArray[np.int64]) -> tuple[Ids, NDArray[np.int64]]:
    """The lines of a stream in another order, and where they end there."""
    ends = np.flatnonzero(ids == 0) + 1
    lengths = np.diff(ends, prepend=0)[order]
    new_ends = np.cumsum(lengths)
    shift = ends[order] - new_ends
    return ids[np.repeat(shift, lengths) + np.arange(len(ids))], new_ends


def _cut(ids: Ids, n_tokens: int, sizes: Sequence[int | None]) -> Ends:
    wanted = sum(size or 0 for size in sizes)
    if wanted > n_tokens:
        raise ValueError(
            f"the split wants {wanted:,} tokens, the text has {n_tokens:,} (line ends not counted)"
        )
    ends, position = [], 0
    for size in sizes:
        position = len(ids) if size is None else _after(ids, position, size)
        ends.append(position)
    return Ends(*ends)


def _after(ids: Ids, begin: int, count: int) -> int:
    """The position after ``count`` tokens from ``begin``, and after the line end that follows."""
    at_once = 2**20
    while count > 0:
        part = ids[begin : begin + at_once]
        found = int(np.count_nonzero(part))
        if found >= count:
            begin += int(np.flatnonzero(part)[count - 1]) + 1
            return begin + int(begin < len(ids) and ids[begin] == 0)
        begin, count = begin + len(part), count - found
    return begin
