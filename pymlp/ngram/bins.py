"""Bins of positions by what training text has of their contexts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pymlp.ngram.counts import Occurrences

Bins = NDArray[np.int64]


def frequency_bins(frequencies: ArrayLike, n_tokens: int) -> Bins:
    """ceil(-log((1 + frequency) / n_tokens)), which is 0 for what is always there.

    Source: Bengio et al. (2003), section 4.1, where the frequency is that of the two tokens before.

    Args:
        frequencies: occurrences of contexts in the training text, from 0 to n_tokens, any shape.
        n_tokens: number of tokens of the training text, from 1 up.

    Returns:
        Integers of the same shape; rarer contexts have larger ones, up to ceil(log(n_tokens)).

    Raises:
        ValueError: a frequency is not in that range.
    """
    counts = np.asarray(frequencies)
    if (counts < 0).any() or (counts > n_tokens).any():
        raise ValueError(f"frequency_bins: frequencies must be from 0 to the {n_tokens} tokens")
    bins: Bins = np.ceil(np.log(n_tokens) - np.log1p(counts)).astype(np.int64)
    return bins


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
