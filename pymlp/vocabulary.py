"""The tokens a model knows: `Vocabulary`, for characters and for words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain

from pymlp import _engine

# How id 0 is shown, which pads contexts and ends every line.
CHARACTER_BOUNDARY = "."
WORD_BOUNDARY = "</s>"
UNKNOWN_WORD = "<unk>"


def join_characters(lines: Iterable[Sequence[str]]) -> bytes:
    """The lines in UTF-8, separated by line feeds.

    Raises:
        TypeError: a line is not a str.
    """
    try:
        text = "\n".join(lines)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(
            f"a vocabulary of characters needs lines of type str ({error}); "
            "Vocabulary.words makes a vocabulary for lists of words"
        ) from None
    return text.encode()


def _boundary(separator: str) -> str:
    return WORD_BOUNDARY if separator else CHARACTER_BOUNDARY


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

    Raises:
        ValueError: the tokens do not fit this description.
    """

    tokens: tuple[str, ...]
    separator: str = ""
    unknown: str | None = None

    def __post_init__(self) -> None:
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

    @classmethod
    def characters(cls, lines: Iterable[Sequence[str]]) -> Vocabulary:
        """The characters (Unicode code points) of the lines, sorted, with ids from 1."""
        code_points = _engine.distinct_code_points(join_characters(lines))
        return cls((CHARACTER_BOUNDARY, *map(chr, code_points)))

    @classmethod
    def words(cls, lines: Iterable[Sequence[str]], min_count: int = 1) -> Vocabulary:
        """The words of the lines, sorted, with ids from 1.

        With `min_count` above 1, words that occur less often are left out, and "<unk>" is added to
        stand for them, as in Bengio et al. (2003).
        """
        counts = Counter(chain.from_iterable(lines))
        words = {word for word, count in counts.items() if count >= min_count}
        unknown = UNKNOWN_WORD if min_count > 1 else None
        if unknown is not None:
            words.add(unknown)
        return cls((WORD_BOUNDARY, *sorted(words)), separator=" ", unknown=unknown)

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """The id of every token of text, from 1. The boundary is not among them."""
        return {token: i for i, token in enumerate(self.tokens) if i > 0}

    def __len__(self) -> int:
        """Number of tokens, the boundary included: the model's `vocab_size`."""
        return len(self.tokens)

    def split(self, line: Sequence[str]) -> Sequence[str]:
        """The tokens of a line: a str falls into words for a vocabulary of words."""
        return line.split() if self.separator and isinstance(line, str) else line

    def encode(self, line: Sequence[str]) -> list[int]:
        """Ids of a line, without a boundary; words may come as a list or as one str.

        Raises:
            ValueError: the line holds a token that is not in the vocabulary.
        """
        tokens = self.split(line)
        unknown = -1 if self.unknown is None else self.ids[self.unknown]
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
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"Vocabulary: not the JSON of a vocabulary: {error}") from None
