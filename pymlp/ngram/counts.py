"""Counts of n-grams, which all models here are made from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pymlp import _engine
from pymlp.ngram.base import Stream, checked_ids


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
        stream = checked_ids(ids, vocab_size)
        self.native = _engine.NGramCounts(
            ids=stream, order=order, vocab_size=vocab_size, reset=reset
        )
        self.order = order
        self.vocab_size = vocab_size
        self.reset = reset
        self.n_tokens = len(stream)

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
