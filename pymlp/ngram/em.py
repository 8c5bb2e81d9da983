"""Expectation-maximisation of mixture weights, bin by bin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pymlp.ngram.base import Floats


def maximise(
    log_probs: Floats,
    bins: NDArray[np.int64],
    weights: Floats,
    prior: Floats,
    *,
    tolerance: float,
    max_steps: int,
) -> tuple[Floats, list[float]]:
    """Weights that maximise the likelihood of a mixture, times a Dirichlet prior.

    Source: Dempster, Laird and Rubin (1977), section 4.3; Jelinek and Mercer (1980) for bins.

    Args:
        log_probs: (N, M) of each position under each model, in nats, N from 1 up.
        bins: (N,) from 0 to B - 1.
        weights: (B, M) to begin with, none of them 0; rows sum to 1.
        prior: (B, M) counts to be added to those of the data.
        tolerance: stop where a step raises the mean log-likelihood by less.
        max_steps: or after so many steps.

    Returns:
        The weights (B, M), and the objective (log-likelihood + log-prior) / N before each step and
        at the end, which never falls. Bins without data or prior keep their weights.

    Raises:
        ValueError: a position has probability 0 under all models.
    """
    peak, scaled = scale(log_probs)
    if (peak == -np.inf).any():
        raise ValueError(
            f"position {int((peak == -np.inf).argmax())} has probability 0 under all models: "
            "no weights can be learned from it"
        )
    objectives: list[float] = []
    while True:
        joint = weights[bins] * scaled
        total = joint.sum(axis=1)
        objectives.append(_objective(peak + np.log(total), weights, prior))
        gain = objectives[-1] - objectives[-2] if len(objectives) > 1 else np.inf
        if gain < tolerance or len(objectives) > max_steps:
            return weights, objectives
        weights = _expected(joint / total[:, None], bins, weights, prior)


def scale(log_probs: Floats) -> tuple[Floats, Floats]:
    """The largest logarithm of each row (N,), and the probabilities (N, M) divided by it."""
    peak = log_probs.max(axis=1)
    finite = np.where(peak == -np.inf, 0.0, peak)
    return peak, np.exp(log_probs - finite[:, None])


def _objective(log_likelihoods: Floats, weights: Floats, prior: Floats) -> float:
    counted = prior > 0
    log_prior = (prior[counted] * np.log(weights[counted])).sum()
    return float((log_likelihoods.sum() + log_prior) / len(log_likelihoods))


def _expected(
    responsibilities: Floats, bins: NDArray[np.int64], weights: Floats, prior: Floats
) -> Floats:
    """Weights in proportion to the expected number of positions that each model accounts for."""
    counts = prior.copy()
    for model in range(counts.shape[1]):
        counts[:, model] += np.bincount(bins, responsibilities[:, model], len(counts))
    totals = counts.sum(axis=1, keepdims=True)
    expected: Floats = np.divide(counts, totals, out=weights.copy(), where=totals > 0)
    return expected
