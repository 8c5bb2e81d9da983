"""Counts of n-grams, which all models here are made from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pymlp import _engine
from pymlp.arguments import to_bool
from pymlp.ngram.base import Stream, checked_ids, checked_order, checked_vocab_size, shown


class Occurrences(NamedTuple):
    """Counts of n-grams in training text: arrays (positions, order) int32, order n in column n - 1.

    Attributes:
        ngrams: occurrences of the n tokens that end at the position.
        contexts: occurrences of the first n - 1 of them as a context of any token; for n = 1 the
            number of tokens of the training text.
        follows: distinct tokens that were met after those first n - 1.
    """

    ngrams: NDArray[np.int32]
    contexts: NDArray[np.int32]
    follows: NDArray[np.int32]


class NGramCounts:
    """Exact counts of all n-grams of a token stream, up to a largest order.

    What lies before the stream reads as boundaries (id 0). With `reset`, n-grams reach back to the
    last boundary and no further, so that no line depends on another; without it they run across
    lines, as in Bengio et al. (2003).

    Args:
        ids: (n,) integers from 0 to V - 1, n from 1 up; int32 is not copied.
        order: the largest order, from 1 to 16.
        vocab_size: number V of ids.
        reset: whether contexts stop at boundaries.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """

    def __init__(self, ids: Stream, order: int, vocab_size: int, reset: bool = True) -> None:
        self.order = checked_order("NGramCounts", order)
        self.vocab_size = checked_vocab_size("NGramCounts", vocab_size)
        self.reset = to_bool("NGramCounts", "reset", reset)
        stream = checked_ids(ids, self.vocab_size)
        self.native = _engine.NGramCounts(
            ids=stream, order=self.order, vocab_size=self.vocab_size, reset=self.reset
        )
        self.n_tokens = len(stream)

    def __repr__(self) -> str:
        return shown(self, ("order", "vocab_size", "reset", "n_tokens"))

    def look_up(self, ids: Stream, begin: int = 0, end: int | None = None) -> Occurrences:
        """How often the n-grams at each position of a stream, and their contexts, were counted.

        What was never met has 0. With `reset`, where a context stops at a boundary, longer ones
        are the same: the columns beyond repeat its counts.

        Args:
            ids, begin, end: as in `NGramModel.log_probs`.

        Raises:
            TypeError, ValueError: as `NGramModel.log_probs`.
        """
        stream = checked_ids(ids, self.vocab_size)
        end = len(stream) if end is None else end
        return Occurrences(*self.native.look_up(stream, begin, end))
