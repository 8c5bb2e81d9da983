"""Mixtures of models, their weights learned by expectation-maximisation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pymlp.arguments import to_float, to_int
from pymlp.ngram.base import Floats, shown
from pymlp.ngram.em import maximise, scale

# The share of equal weights in the weights that bins begin with: EM would hardly leave a weight
# that is almost 0.
_EQUAL_SHARE = 0.01


# Far beyond those of `context_bins`; each takes a row of weights, met or not.
_MOST_BINS = 2**24


class Mixture:
    """p = w_1 p_1 + ... + w_M p_M, from the models' log-probabilities of the same tokens.

    The weights are `fixed` from the beginning, or `learned` by maximum likelihood on development
    data, or `binned`: learned apart for each bin of positions, such as those whose contexts are
    about as frequent (`frequency_bins`, `context_bins`).

    Source: Bengio et al. (2003), section 4.2: 0.5 and 0.5, learned weights, and weights that
    depend on the frequency of the context; binning and EM as in their section 4.1 after Jelinek
    and Mercer (1980).

    Args:
        kind: "fixed", "learned" or "binned".
        weights: (M,) for `fixed`, not negative, with sum 1; without them all are 1 / M.
        prior: for `binned`, as many positions as each bin has in addition that are divided among
            the models as `learned` does: small bins stay near the common weights. With 0 the
            likelihood is maximised, otherwise likelihood times this (Dirichlet) prior.

    Attributes:
        weights: (M,) or, if `binned`, (bins, M); None before `fit` if they are not fixed.
        objectives: mean log-likelihood of the data of `fit`, prior included, before each step of
            EM; it never falls.

    Raises:
        ValueError: an argument is not as described.
    """

    def __init__(
        self, kind: str, weights: Sequence[float] | None = None, prior: float = 0.0
    ) -> None:
        if kind not in ("fixed", "learned", "binned"):
            raise ValueError(f"Mixture: kind must be fixed, learned or binned, got {kind!r}")
        if weights is not None and kind != "fixed":
            raise ValueError(f"Mixture: weights are for kind 'fixed', not for {kind!r}")
        self.kind = kind
        self.prior = to_float("Mixture", "prior", prior, least=0)
        if self.prior and kind != "binned":
            raise ValueError(f"Mixture: prior is for kind 'binned', got {prior} for {kind!r}")
        self.weights: Floats | None = None if weights is None else _checked_weights(weights)
        self.objectives: list[float] = []
        self._common = np.zeros((0, 0))  # (1, M), of bins that `fit` did not see

    def __repr__(self) -> str:
        return shown(self, ("kind", "prior"))

    def fit(
        self,
        log_probs: Sequence[ArrayLike],
        bins: ArrayLike | None = None,
        *,
        tolerance: float = 1e-7,
        max_steps: int = 1000,
    ) -> Mixture:
        """Learn the weights; nothing is learned if they are `fixed`.

        Args:
            log_probs: M arrays (N,) of nats, of development data that no model was trained on.
            bins: (N,) integers from 0 up, if `binned`.
            tolerance: EM ends where a step raises the mean log-likelihood by less.
            max_steps: or after so many steps.

        Raises:
            ValueError: shapes differ, there is no position, bins are missing or not wanted, or
                some position has probability 0 under all models.
        """
        tolerance = to_float("Mixture", "tolerance", tolerance)
        max_steps = to_int("Mixture", "max_steps", max_steps, 0)
        table = _table(log_probs)
        if len(table) == 0:
            raise ValueError("Mixture: there are no positions to learn weights from")
        self._check_bins(bins)
        checked = None if bins is None else _checked_bins(bins, len(table))
        if self.kind == "fixed":
            return self
        learn = partial(maximise, table, tolerance=tolerance, max_steps=max_steps)
        one_bin = np.zeros(len(table), np.int64)
        uniform = np.full((1, table.shape[1]), 1 / table.shape[1])
        self._common, self.objectives = learn(one_bin, uniform, 0 * uniform)
        self.weights = self._common[0]
        if checked is not None:
            common = np.repeat(self._common, checked.max() + 1, axis=0)
            apart = common + _EQUAL_SHARE * (uniform - common)
            start = np.where(np.bincount(checked)[:, None] > 0, apart, common)
            self.weights, self.objectives = learn(checked, start, self.prior * common)
        return self

    def log_probs(self, log_probs: Sequence[ArrayLike], bins: ArrayLike | None = None) -> Floats:
        """log p of the mixture.

        Args:
            log_probs: M arrays (N,) of nats, in the order of `fit`.
            bins: (N,) integers from 0 up, if `binned`; those that `fit` did not see have the
                weights that `learned` has.

        Returns:
            (N,) float64, in nats.

        Raises:
            RuntimeError: weights that are not fixed were not fitted.
            ValueError: shapes differ, or bins are missing or not wanted.
        """
        table = _table(log_probs)
        self._check_bins(bins)
        weights = self.weights
        if weights is None:
            if self.kind != "fixed":
                raise RuntimeError("Mixture: call fit(log_probs) before asking for anything")
            weights = np.full(table.shape[1], 1 / table.shape[1])
        if weights.shape[-1] != table.shape[1]:
            raise ValueError(f"Mixture: expected {weights.shape[-1]} models, got {table.shape[1]}")
        if bins is not None:
            rows = np.minimum(_checked_bins(bins, len(table)), len(weights))
            weights = np.concatenate([weights, self._common])[rows]
        peak, scaled = scale(table)
        with np.errstate(divide="ignore"):
            mixed: Floats = peak + np.log((weights * scaled).sum(axis=1))
        return mixed

    def _check_bins(self, bins: ArrayLike | None) -> None:
        if (bins is None) == (self.kind == "binned"):
            wanted = "needs bins" if self.kind == "binned" else "takes no bins"
            raise ValueError(f"Mixture: kind {self.kind!r} {wanted}")


def _table(log_probs: Sequence[ArrayLike]) -> Floats:
    """The models' log-probabilities side by side, (N, M)."""
    columns = [np.asarray(column, np.float64) for column in log_probs]
    shapes = [column.shape for column in columns]
    if not shapes or len(shapes[0]) != 1 or len(set(shapes)) > 1:
        raise ValueError(f"Mixture: expected log-probabilities of one shape (N,), got {shapes}")
    table = np.stack(columns, axis=1)
    if not (table < np.inf).all():
        raise ValueError("Mixture: there is a NaN or +inf among the log-probabilities")
    return table


def _checked_bins(bins: ArrayLike | None, n_positions: int) -> NDArray[np.int64]:
    checked = np.asarray(bins)
    if checked.shape != (n_positions,) or checked.dtype.kind not in "iu" or (checked < 0).any():
        raise ValueError(
            f"Mixture: bins must be {n_positions} integers from 0 up, got shape {checked.shape} "
            f"and dtype {checked.dtype}"
        )
    if checked.size and checked.max() >= _MOST_BINS:
        raise ValueError(
            f"Mixture: bins must be below {_MOST_BINS:,}, got {checked.max()}: number those that "
            "there are from 0 up"
        )
    return checked.astype(np.int64)


def _checked_weights(weights: Sequence[float]) -> Floats:
    checked = np.asarray(weights, np.float64)
    if checked.ndim != 1 or not (checked >= 0).all() or abs(checked.sum() - 1) > 1e-9:
        raise ValueError(f"Mixture: weights must be from 0 up and sum to 1, got {weights}")
    return checked
