"""The cache: words that came up lately come up again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pymlp.arguments import to_int
from pymlp.ngram.base import (
    Floats,
    NGramModel,
    Stream,
    check_span,
    checked_ids,
    checked_vocab_size,
)


class Cache(NGramModel):
    """Relative frequencies of the tokens among the last ones of the very text that is predicted.

    It is worth little alone and much in a mixture, since n-gram models and neural ones with a short
    context do not know what a text is about. A mixture with it learns from the text that it is
    tested on, as it goes: figures with a cache are to be marked as such.

    Source: Kuhn and De Mori, "A cache-based natural language model for speech recognition", IEEE
    PAMI 12(6), 1990; here of words alone, without classes.

    Args:
        vocab_size: number V of ids; all have 1 / V at the first position of a stream.
        window: number of tokens looked back at, boundaries among them, from 1 up.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """

    _settings = ("vocab_size", "window")

    def __init__(self, vocab_size: int, window: int = 1000) -> None:
        self.vocab_size = checked_vocab_size("Cache", vocab_size)
        self.window = to_int("Cache", "window", window, 1)

    def log_probs(self, ids: Stream, begin: int = 0, end: int | None = None) -> Floats:
        """As `NGramModel.log_probs`; -inf where the token was not among the last `window` ones."""
        stream = checked_ids(ids, self.vocab_size)
        end = len(stream) if end is None else end
        check_span(stream, begin, end)
        first = max(begin - self.window, 0)
        counts = _recent(stream[first:end], self.window)[begin - first :]
        looked_at = np.minimum(np.arange(begin, end), self.window)
        uniform = np.full(end - begin, 1 / self.vocab_size)
        with np.errstate(divide="ignore"):
            log_probs: Floats = np.log(
                np.divide(counts, looked_at, out=uniform, where=looked_at > 0)
            )
        return log_probs


def _recent(stream: NDArray[np.int32], window: int) -> NDArray[np.int64]:
    """How often each token was among the `window` ones before it."""
    n = len(stream)
    order = np.argsort(stream, kind="stable")  # the positions of one token after the other
    places = stream[order].astype(np.int64) * n + order  # ascending
    oldest = np.maximum(order - window, 0)
    earlier = np.searchsorted(places, stream[order].astype(np.int64) * n + oldest)
    counts = np.empty(n, np.int64)
    counts[order] = np.arange(n) - earlier
    return counts
