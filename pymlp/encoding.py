"""Lines of text to token ids and back: `encode`, `decode`, and the table of `examples`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, pairwise, repeat
from typing import TYPE_CHECKING

import numpy as np
import torch

from pymlp import _engine
from pymlp.lines import Line, as_lines
from pymlp.streams import Examples, TokenStream
from pymlp.vocabulary import Vocabulary, join_characters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ids = NDArray[np.int32]


def examples(lines: Iterable[Line], vocabulary: Vocabulary, block_size: int) -> Examples:
    """Slide a window of `block_size` ids over every line.

    A line of n tokens makes n + 1 examples: every token after the `block_size` before it, and the
    boundary after the last ones. What lies before a line reads as boundaries. Errors count the
    given lines from 1.
    Equivalent to: `pymlp.reference.examples(lines, vocabulary.ids, block_size)`.

    Returns:
        tokens (N, T) and targets (N,), int64, in the order of the lines.

    Raises:
        TypeError: as `pymlp.lines.as_lines`, or the lines are lists for one of characters.
        ValueError: a token is not in the vocabulary, a line holds a line break, or `block_size` is
            below 1.
    """
    made = encode_known(lines, vocabulary).examples(block_size)
    return Examples(made.tokens, made.targets)


def encode_known(lines: Iterable[Line], vocabulary: Vocabulary) -> TokenStream:
    """The stream of the lines, whose contexts begin where lines begin.

    Raises:
        TypeError, ValueError: as `examples`.
    """
    lines = as_lines(lines, "examples")
    ids = _encode(lines, vocabulary)
    missing = ids < 0
    if missing.any():
        at = int(missing.argmax())
        before = np.flatnonzero(ids[:at] == 0)  # the ends of the lines before
        line, start = len(before), int(before[-1]) + 1 if len(before) else 0
        token = vocabulary.split(lines[line])[at - start]
        raise ValueError(f"examples: line {line + 1}: {vocabulary.describe_missing(token)}")
    return TokenStream(torch.from_numpy(ids), vocab_size=len(vocabulary))


def encode(lines: Iterable[Line], vocabulary: Vocabulary) -> Ids:
    """Ids (int32) of the tokens of all lines, 0 after each line, -1 for what the vocabulary lacks.

    Raises:
        TypeError, ValueError: as `examples`.
    """
    return _encode(as_lines(lines, "encode"), vocabulary)


def _encode(lines: list[Line], vocabulary: Vocabulary) -> Ids:
    if not lines:
        return np.zeros(0, np.int32)
    return (_encode_words if vocabulary.separator else _encode_characters)(lines, vocabulary)


def _encode_characters(lines: list[Line], vocabulary: Vocabulary) -> Ids:
    code_points = [ord(token) for token in vocabulary.tokens[1:]]
    if vocabulary.lowercase:
        lines = [vocabulary.split(line) for line in lines]
    ids: Ids = _engine.encode(join_characters(lines), code_points)
    if len(ids) - np.count_nonzero(ids) != len(lines):
        number = next(i for i, line in enumerate(lines, 1) if "\n" in line)
        raise ValueError(f"examples: line {number} holds a line break; read_lines splits there")
    return ids


def _encode_words(lines: list[Line], vocabulary: Vocabulary) -> Ids:
    """Words are looked up whole."""
    lines = [vocabulary.split(line) for line in lines]
    unknown = -1 if vocabulary.unknown is None else vocabulary.ids[vocabulary.unknown]
    lengths = np.fromiter(map(len, lines), np.int64, count=len(lines))
    found = map(vocabulary.ids.get, chain.from_iterable(lines), repeat(unknown))
    ids = np.zeros(int(lengths.sum()) + len(lines), np.int32)
    is_token = np.ones(len(ids), bool)
    is_token[np.cumsum(lengths + 1) - 1] = False
    ids[is_token] = np.fromiter(found, np.int32, count=int(lengths.sum()))
    return ids


def decode(ids: Ids, vocabulary: Vocabulary) -> list[Line]:
    """The lines of a stream of known ids; the last one need not be ended.

    Raises:
        ValueError: an id is not in the vocabulary, as in a damaged token file.
    """
    if not len(ids):
        return []
    least, most = int(ids.min()), int(ids.max())
    if not 0 <= least <= most < len(vocabulary):
        raise ValueError(
            f"decode: ids must be from 0 to {len(vocabulary) - 1}, got {least} to {most}"
            "; if they are of a token file, it is damaged: prepare the text again"
        )
    if vocabulary.separator:
        spell = vocabulary.tokens.__getitem__
        ends = np.flatnonzero(ids == 0)
        if ids[-1] != 0:
            ends = np.append(ends, len(ids))
        words, bounds = ids.tolist(), [-1, *ends.tolist()]
        return [list(map(spell, words[before + 1 : end])) for before, end in pairwise(bounds)]
    code_points = np.array([ord("\n"), *map(ord, vocabulary.tokens[1:])], "<u4")
    text = code_points[ids].tobytes().decode("utf-32-le")
    return list(text.removesuffix("\n").split("\n"))
