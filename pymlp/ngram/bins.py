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


def context_bins(occurrences: Occurrences) -> Bins:
    """Bins by what a Kneser-Ney model has to go by: for mixtures with one.

    Three things together: the length of the longest context that training text has, since the
    model predicts from that; how often it has it; and how many different tokens it has after the
    last token alone, which says how open the continuation is. The latter two go by octaves: 1,
    2 to 3, 4 to 7, ...

    Args:
        occurrences: of `NGramCounts.look_up`.

    Returns:
        (positions,) integers from 0 to 96 * order - 1. Most bins are small: give `Mixture` a prior.
    """
    _, contexts, follows = occurrences
    order = contexts.shape[1]
    longest = order - 1 - (contexts > 0)[:, ::-1].argmax(axis=1)
    frequency = np.take_along_axis(contexts, longest[:, None], axis=1)[:, 0]
    openness = follows[:, min(1, order - 1)]
    bins: Bins = (longest * 6 + _octave(frequency, 6)) * 16 + _octave(openness, 16)
    return bins


def _octave(counts: NDArray[np.int32], n_octaves: int) -> Bins:
    """0 for 0 and 1, 1 for 2 to 3, 2 for 4 to 7, ..., the last without a bound."""
    octaves: Bins = np.log2(np.maximum(counts, 1)).astype(np.int64)
    return np.minimum(octaves, n_octaves - 1)
