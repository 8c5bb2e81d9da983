"""From a file to a data set: `load`, and the record of how it was done, `DataConfig`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from pymlp import _engine
from pymlp.arguments import to_bool, to_int
from pymlp.dataset import Dataset, Ends
from pymlp.lines import SPLIT_SEED, cut_points
from pymlp.streams import TokenStream
from pymlp.text import Input, Readable, open_input, read_numbers
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

SHUFFLED, FILES = "lines", "files"
# The shares that shuffled lines are divided into by default, as in the lecture.
_FRACTIONS = (0.8, 0.1, 0.1)

# Options that a token file has decided already.
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
            lecture; ``"0.9,0.1,0"`` does so with other shares of train, dev and test, whose sum is
            1. ``"800000,200000,rest"`` cuts the text as it stands into so many tokens each;
            boundaries do not count, the line end after a split's last token belongs to it, and a
            cut may fall within a line. ``"files"`` is for splits that are files of their own.
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
        lowercase = to_bool("DataConfig", "lowercase", self.lowercase)
        object.__setattr__(self, "lowercase", lowercase)
        if not isinstance(self.split, str):
            raise TypeError(f"DataConfig: split must be a str, got {self.split!r:.40}")
        if self.tokens is not None:
            check_kind(self.tokens)
        for name, known in (("vocab_from", ("all", "train")), ("context", ("reset", "across"))):
            value = getattr(self, name)
            if value not in known and not (value is None and name == "context"):
                raise ValueError(f"{name} must be {known[0]!r} or {known[1]!r}, got {value!r}")
        self.sizes(), self.fractions()  # raise

    def resets(self, of_words: bool) -> bool:
        """Whether contexts begin where their lines begin, for a vocabulary of words or not."""
        runs_on = of_words and self.fractions() is None
        return (self.context or ("across" if runs_on else "reset")) == "reset"

    def fractions(self) -> tuple[float, float, float] | None:
        """Shares of train, dev and test; None where lines are not shuffled."""
        if self.split == SHUFFLED:
            return _FRACTIONS
        try:
            train, dev, test = map(float, self.split.split(","))
        except ValueError:
            return None
        is_whole = min(train, dev, test) >= 0 and abs(train + dev + test - 1) < 1e-6
        return (train, dev, test) if is_whole else None

    def sizes(self) -> tuple[int | None, ...] | None:
        """Tokens of train, dev and test, None for the rest; None where they are not counted."""
        if self.split == FILES or self.fractions() is not None:
            return None
        *counts, last = self.split.split(",")
        try:
            sizes = (*map(int, counts), None if last == "rest" else int(last))
            if len(sizes) == 3 and all(size is None or size >= 0 for size in sizes):
                return sizes
        except ValueError:
            pass
        raise ValueError(
            f"split must be {SHUFFLED!r} or numbers of tokens such as '800000,200000,rest' or "
            f"shares such as '0.9,0.1,0', whose sum is 1, got {self.split!r}"
        )


class _Text(NamedTuple):
    """A text in memory, as numbers; number i + 1 is spelled ``spellings[i]``."""

    numbers: Ids
    spellings: list[str]
    n_lines: int
    n_empty: int


def load(
    path: Readable,
    block_size: int = 3,
    config: DataConfig | None = None,
    *,
    dev: Readable | None = None,
    test: Readable | None = None,
) -> Dataset:
    """The data set of a text, plain or gzip, or of a token file.

    A token file that is not shuffled stays on disk, mapped into memory. Each source is opened and
    read once: it may be a pipe.

    Args:
        path: UTF-8 text, one line for each sentence or name; or what `prepare` wrote. Or a file
            that is open for bytes.
        block_size: length T of the contexts.
        config: default ``DataConfig()``.
        dev, test: texts of these splits, where they are files of their own; ``path`` is train.
            Without ``test``, that split is empty.

    Raises:
        OSError: the file cannot be read.
        TypeError: a source is neither a path nor a file open for bytes, or ``block_size`` is not
            an int.
        ValueError: ``block_size`` is below 1; the text is empty, not UTF-8 or damaged gzip, a
            table, or shorter than the split wants; a token file is cut short, or prepared otherwise
            than ``config`` says.
    """
    block_size = to_int("load", "block_size", block_size, 1)
    config = _with_files(config or DataConfig(), dev, test)
    with ExitStack() as stack:
        given = {"source": path, "dev": dev, "test": test}
        files = {n: stack.enter_context(open_input(f)) for n, f in given.items() if f is not None}
        try:
            data = _load(list(files.values()), block_size, config)
        except ValueError as error:
            named = str(error).startswith(tuple(file.name for file in files.values()))
            name = files["source"].name
            raise ValueError(str(error) if named else f"{name}: {error}") from None
        places = {name: file.path for name, file in files.items()}
    # A text that was read from a pipe cannot be found again.
    found = places if None not in places.values() else {}
    return replace(data, origin={**found, **asdict(config)})


def _with_files(config: DataConfig, dev: object, test: object) -> DataConfig:
    if dev is None:
        if test is not None or config.split == FILES:
            raise ValueError("files of their own for the splits need dev, too")
        return config
    if config.split not in (SHUFFLED, FILES):
        raise ValueError(f"split {config.split!r} divides one file, but dev has a file of its own")
    return replace(config, split=FILES)


def _load(files: list[Input], block_size: int, config: DataConfig) -> Dataset:
    prepared = [file.name for file in files if is_token_file(file)]
    if config.split != FILES and prepared:
        return _load_token_file(files[0], block_size, config)
    if prepared:
        raise ValueError(
            f"{prepared[0]} is a token file: give train, dev and test as texts, or prepare one "
            "text and split it by numbers of tokens"
        )
    return _load_texts(files, block_size, config)


def _load_texts(files: list[Input], block_size: int, config: DataConfig) -> Dataset:
    of_words = config.tokens == "word"
    texts = [_read(file, of_words) for file in files]
    text = _join(texts)
    if config.split == FILES:
        numbers, ends = text.numbers, _ends_of([len(t.numbers) for t in texts])
    else:
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


def _read(file: Input, of_words: bool) -> _Text:
    reader = _engine.TextReader(of_words)
    numbers = np.concatenate(list(read_numbers(file, reader)))
    check_not_empty(file.name, reader.n_lines)
    return _Text(numbers, reader.spellings(), reader.n_lines, reader.n_empty)


def _join(texts: Sequence[_Text]) -> _Text:
    """One text after the other, with common numbers."""
    if len(texts) == 1:
        return texts[0]
    known: dict[str, int] = {}
    numbers = []
    for text in texts:
        common = [0, *(known.setdefault(x, len(known) + 1) for x in text.spellings)]
        numbers.append(np.array(common, np.int32)[text.numbers])
    n_lines, n_empty = (sum(getattr(t, name) for t in texts) for name in ("n_lines", "n_empty"))
    return _Text(np.concatenate(numbers), list(known), n_lines, n_empty)


def _load_token_file(file: Input, block_size: int, config: DataConfig) -> Dataset:
    stream, prepared = open_token_file(file)
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
    origin = stream.file if config.fractions() is None else None
    divided = replace(_stream(ids, vocabulary, config), file=origin)
    return Dataset(divided, ends, vocabulary, block_size, prepared.n_empty)


def _stream(ids: Ids, vocabulary: Vocabulary, config: DataConfig) -> TokenStream:
    resets = config.resets(of_words=bool(vocabulary.separator))
    return TokenStream(torch.from_numpy(ids), resets, len(vocabulary))


# --- splitting ------------------------------------------------------------------------------------


def _split(ids: Ids, n_lines: int, config: DataConfig) -> tuple[Ids, Ends]:
    """A stream with its splits one after the other, and where they end."""
    sizes, fractions = config.sizes(), config.fractions()
    if sizes is not None:
        return ids, _cut(ids, len(ids) - n_lines, sizes)
    assert fractions is not None
    if np.count_nonzero(ids == 0) != n_lines or ids[-1] != 0:
        raise ValueError(
            f"the token file is damaged: it does not hold the {n_lines:,} lines that it says: "
            "prepare the text again"
        )
    order = list(range(n_lines))
    random.Random(SPLIT_SEED).shuffle(order)
    shuffled, ends = _reorder(ids, np.array(order))
    # Rounded, for 0.7 + 0.1 is less than 0.8.
    first, second = cut_points(n_lines, (fractions[0], round(fractions[0] + fractions[1], 9)))
    of_lines = [0, *ends.tolist()]
    return shuffled, Ends(of_lines[first], of_lines[second], len(ids))


def _ends_of(lengths: Sequence[int]) -> Ends:
    """The ends of splits of so many ids; those that are not there are empty."""
    train, dev, test = (*accumulate([*lengths, 0][:3]),)
    return Ends(train, dev, test)


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
