"""The tokens a model knows: `Vocabulary`, for characters and for words."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import TYPE_CHECKING

import numpy as np

from pymlp import _engine
from pymlp.lines import as_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

# How id 0 is shown, which pads contexts and ends every line.
CHARACTER_BOUNDARY = "."
WORD_BOUNDARY = "</s>"
UNKNOWN_WORD = "<unk>"

_SURROGATE = re.compile("[\ud800-\udfff]")


def join_characters(lines: Iterable[Sequence[str]]) -> bytes:
    """The lines in UTF-8, separated by line feeds.

    Raises:
        TypeError: a line is not a str.
        ValueError: a line holds a lone surrogate; lines are counted from 1.
    """
    try:
        text = "\n".join(lines)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(
            f"a vocabulary of characters needs lines of type str ({error}); "
            "Vocabulary.words makes a vocabulary for lists of words"
        ) from None
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise _surrogate_error(line, text[error.start]) from None


def _surrogate_error(line: int, character: str) -> ValueError:
    return ValueError(
        f"line {line} holds {character!r}, a lone surrogate, which is no text: read the file as "
        "UTF-8, without errors='surrogateescape'"
    )


def _words_of(line: Sequence[str]) -> Sequence[str]:
    return line.split() if isinstance(line, str) else line


def _boundary(separator: str) -> str:
    return WORD_BOUNDARY if separator else CHARACTER_BOUNDARY


def _select(counts: Counter[str], min_count: int, vocab_size: int | None) -> list[str]:
    """The words to keep: see `Vocabulary.from_counts`."""
    if min_count < 1:
        raise ValueError(f"Vocabulary: min_count must be at least 1, got {min_count}")
    kept = [word for word, count in counts.items() if count >= min_count]
    if vocab_size is None:
        return kept
    others = 2  # the boundary and "<unk>"
    if vocab_size < others:
        raise ValueError(
            f"Vocabulary: vocab_size must be at least {others}, for {WORD_BOUNDARY} and "
            f"{UNKNOWN_WORD}, got {vocab_size}"
        )
    return sorted(kept, key=lambda word: (-counts[word], word))[: vocab_size - others]


def _lower_of(separator: str) -> Callable[[str], str]:
    """The function to lower case: words whole, characters only where that is one character."""
    return str.lower if separator else _lower_character


def _lower_character(character: str) -> str:
    lower = character.lower()
    return lower if len(lower) == 1 else character


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and their ids: `tokens[i]` is the spelling of id i.

    Id 0 is the boundary, which pads contexts and ends every line: shown as "." among characters, as
    in the lecture, and as "</s>" among words. It is not text: a "." in the data is a token of its
    own, with an id of its own.

    Args:
        tokens: the boundary, then the spelling of ids 1, 2, ...
        separator: "" for a vocabulary of characters, " " for one of words.
        unknown: the token that stands for every word not listed, or None for an error instead.
        lowercase: text is put into lower case before it is looked up, token by token.

    Raises:
        ValueError: the tokens do not fit this description.
    """

    tokens: tuple[str, ...]
    separator: str = ""
    unknown: str | None = None
    lowercase: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        text = self.tokens[1:]
        if len(set(text)) != len(text):
            repeated = next(token for token, n in Counter(text).items() if n > 1)
            raise ValueError(f"Vocabulary: token {repeated!r} is listed more than once")
        if self.separator not in ("", " "):
            raise ValueError(f"Vocabulary: separator must be '' or ' ', got {self.separator!r}")
        boundary = _boundary(self.separator)
        if self.tokens[:1] != (boundary,):
            raise ValueError(
                f"Vocabulary: tokens must start with the boundary {boundary!r}, got "
                f"{self.tokens[:1]}"
            )
        if not self.separator and any(len(token) != 1 for token in text):
            longer = next(token for token in text if len(token) != 1)
            raise ValueError(
                f"Vocabulary: {longer!r} is not one character; separator ' ' has words"
            )
        if self.unknown is not None and (not self.separator or self.unknown not in text):
            raise ValueError(f"Vocabulary: unknown must be one of the words, got {self.unknown!r}")

    def _check_types(self) -> None:
        if not isinstance(self.tokens, tuple):
            raise TypeError(
                f"Vocabulary: tokens must be a tuple of str, got a {type(self.tokens).__name__}"
            )
        wrong = next((token for token in self.tokens if not isinstance(token, str)), None)
        if wrong is not None:
            raise TypeError(f"Vocabulary: tokens must be of type str, got {wrong!r:.40}")
        if not isinstance(self.lowercase, bool):
            raise TypeError(f"Vocabulary: lowercase must be a bool, got {self.lowercase!r:.40}")

    @classmethod
    def characters(cls, lines: Iterable[Sequence[str]]) -> Vocabulary:
        """The characters (Unicode code points) of the lines, sorted, with ids from 1.

        Raises:
            TypeError: as `pymlp.lines.as_lines`, or the lines are lists.
        """
        listed = as_lines(lines, "Vocabulary.characters")
        code_points = _engine.distinct_code_points(join_characters(listed))
        return cls((CHARACTER_BOUNDARY, *map(chr, code_points)))

    @classmethod
    def words(
        cls,
        lines: Iterable[Sequence[str]],
        min_count: int = 1,
        vocab_size: int | None = None,
        lowercase: bool = False,
    ) -> Vocabulary:
        """The words of the lines, sorted, with ids from 1; arguments as `from_counts`.

        A str falls into words where white space is.

        Raises:
            TypeError: as `pymlp.lines.as_lines`.
            ValueError: as `from_counts`, or a line holds a lone surrogate.
        """
        listed = as_lines(lines, "Vocabulary.words")
        counts = Counter(chain.from_iterable(map(_words_of, listed)))
        found = _SURROGATE.search(" ".join(counts))
        if found is not None:
            at = next(i for i, line in enumerate(listed, 1) if _SURROGATE.search(" ".join(line)))
            raise _surrogate_error(at, found[0])
        return cls.from_counts(
            list(counts),
            list(counts.values()),
            min_count=min_count,
            vocab_size=vocab_size,
            lowercase=lowercase,
        )[0]

    @classmethod
    def from_counts(
        cls,
        spellings: Sequence[str],
        counts: Sequence[int],
        *,
        separator: str = " ",
        lowercase: bool = False,
        min_count: int = 1,
        vocab_size: int | None = None,
        is_open: bool = False,
    ) -> tuple[Vocabulary, NDArray[np.int32]]:
        """The vocabulary of a text whose tokens have been counted, sorted, with ids from 1.

        Words that are left out are merged into "<unk>", as in Bengio et al. (2003), which then has
        an id like any word; a "<unk>" in the text is the same.

        Args:
            spellings: the different tokens of the text.
            counts: how often each of them was met.
            separator: " " for words, "" for characters.
            lowercase: put the text into lower case first, token by token.
            min_count: words met less often are left out.
            vocab_size: keep the most frequent words, so that the vocabulary has no more tokens
                than this, "</s>" and "<unk>" included; of equally frequent ones those that sort
                first. None keeps all.
            is_open: there is other text, too: add "<unk>" and leave out what was met 0 times.

        Returns:
            The vocabulary, and a table (len(spellings) + 1,) of ids: 0, then that of each spelling.

        Raises:
            ValueError: a number is out of range, or words are to be left out of characters.
        """
        leaves_out = is_open or min_count > 1 or vocab_size is not None
        if leaves_out and not separator:
            raise ValueError(
                "Vocabulary: words can be left out (min_count, vocab_size, vocab_from train), "
                "characters cannot: use tokens 'word'"
            )
        tokens = list(map(_lower_of(separator), spellings)) if lowercase else spellings
        totals: Counter[str] = Counter()
        for token, count in zip(tokens, counts, strict=True):
            totals[token] += count
        unknown = UNKNOWN_WORD if leaves_out else None
        if unknown is not None:
            del totals[unknown]
        kept = _select(totals, min_count, vocab_size)
        listed = sorted(kept if unknown is None else [*kept, unknown])
        vocabulary = cls((_boundary(separator), *listed), separator, unknown, lowercase)
        ids = map(vocabulary.ids.get, tokens, repeat(vocabulary.ids.get(unknown or "", -1)))
        return vocabulary, np.fromiter(chain([0], ids), np.int32, count=len(tokens) + 1)

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """The id of every token of text, from 1. The boundary is not among them."""
        return {token: i for i, token in enumerate(self.tokens) if i > 0}

    def __len__(self) -> int:
        """Number of tokens, the boundary included: the model's `vocab_size`."""
        return len(self.tokens)

    def __repr__(self) -> str:
        kind = "words" if self.separator else "characters"
        shown = [repr(token[:20]) for token in self.tokens[:4]]
        more = ["..."] if len(self) > len(shown) else []
        options = [f"unknown {self.unknown!r}"] if self.unknown is not None else []
        options += ["lowercase"] if self.lowercase else []
        listed = ", ".join([*shown, *more])
        return "; ".join([f"Vocabulary({len(self):,} {kind}: {listed}", *options]) + ")"

    def split(self, line: Sequence[str]) -> Sequence[str]:
        """The tokens of a line: a str falls into words for a vocabulary of words.

        They are put into lower case if the vocabulary is of such tokens.
        """
        if self.separator:
            line = _words_of(line)
        if not self.lowercase:
            return line
        tokens = map(_lower_of(self.separator), line)
        return list(tokens) if self.separator else "".join(tokens)

    def find(self, token: str) -> int | None:
        """The id of one token of text, that of ``unknown`` if it is not listed, else None."""
        token = _lower_of(self.separator)(token) if self.lowercase else token
        return self.ids.get(token, self.ids.get(self.unknown or ""))

    def encode(self, line: Sequence[str]) -> list[int]:
        """Ids of a line, without a boundary; words may come as a list or as one str.

        Raises:
            TypeError: the line is neither a str nor a list of str.
            ValueError: the line holds a token that is not in the vocabulary.
        """
        tokens = self.split(*as_lines([line], "Vocabulary.encode"))
        unknown = self.ids.get(self.unknown or "", -1)
        ids = [self.ids.get(token, unknown) for token in tokens]
        if -1 in ids:
            raise ValueError(self.describe_missing(tokens[ids.index(-1)]))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; id 0 is shown as the boundary.

        Raises:
            ValueError: an id is out of range.
        """
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < len(self):
                raise ValueError(f"Vocabulary: id {i} is not in the range 0 to {len(self) - 1}")
        return self.separator.join(self.tokens[i] for i in ids)

    def decode_all(self, lines: Iterable[Iterable[int]]) -> list[str]:
        """The texts of many lines of ids, which must be in range."""
        spell, join = self.tokens.__getitem__, self.separator.join
        return [join(map(spell, ids)) for ids in lines]

    def describe_missing(self, token: str) -> str:
        """A sentence for the error that `token` is not in the vocabulary."""
        kind = "word" if self.separator else "character"
        code_point = f" (U+{ord(token):04X})" if len(token) == 1 else ""
        return f"{kind} {token!r}{code_point} is not in the vocabulary of {len(self)} tokens"

    def to_json(self) -> str:
        """One JSON object with the fields of this class; `from_json` reads it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """The vocabulary that `to_json` wrote.

        Raises:
            ValueError: the text is not such an object.
        """
        try:
            fields = json.loads(text)
            return cls(tuple(fields.pop("tokens")), **fields)
        except (AttributeError, KeyError, TypeError, RecursionError, ValueError) as error:
            reason = str(error).removeprefix("Vocabulary: ")
            raise ValueError(f"Vocabulary: not the JSON of a vocabulary: {reason}") from None
