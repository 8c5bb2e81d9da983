"""Bins of positions by what training text has of their contexts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pymlp.ngram.counts import Occurrences

Bins = NDArray[np.int64]


def frequency_bins(frequencies: ArrayLike, n_tokens: int) -> Bins:
    """ceil(-log((1 + frequency) / n_tokens)), and 0 for what is more frequent.

    Source: Bengio et al. (2003), section 4.1, where the frequency is that of the two tokens before.

    Args:
        frequencies: occurrences of contexts in the training text, any shape.
        n_tokens: number of tokens of the training text, from 1 up.

    Returns:
        Integers of the same shape; rarer contexts have larger ones, up to ceil(log(n_tokens)).

    Raises:
        ValueError: `n_tokens` is below 1, or a frequency below 0.
    """
    counts = np.asarray(frequencies)
    if n_tokens < 1 or (counts < 0).any():
        raise ValueError("frequency_bins: expected n_tokens from 1 up and frequencies from 0 up")
    bins: Bins = np.ceil(np.log(n_tokens) - np.log1p(counts)).astype(np.int64)
    return np.maximum(bins, 0)


def context_bins(occurrences: Occurrences, per_order: int = 6) -> Bins:
    """Bins by the longest context that training text has, and how often it has it.

    How much a Kneser-Ney model knows about a position depends on both: one context of four tokens
    that was met once is worth less than one of two that was met a hundred times.

    Args:
        occurrences: of `NGramCounts.look_up`.
        per_order: bins for each length of context: of 1, 2 to 3, 4 to 7, ... occurrences, the last
            without a bound.

    Returns:
        (positions,) integers from 0 to order * per_order - 1.
    """
    contexts = occurrences.contexts
    order = contexts.shape[1]
    longest = order - 1 - (contexts > 0)[:, ::-1].argmax(axis=1)
    counts = np.take_along_axis(contexts, longest[:, None], axis=1)[:, 0]
    octaves = np.log2(np.maximum(counts, 1)).astype(np.int64)
    bins: Bins = longest * per_order + np.minimum(octaves, per_order - 1)
    return bins
