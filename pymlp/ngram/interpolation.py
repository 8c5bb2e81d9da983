"""Deleted interpolation, the n-gram model that Bengio et al. (2003) mix with theirs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pymlp.arguments import to_bool
from pymlp.ngram.base import Floats, NGramModel, Stream, checked_order, checked_vocab_size
from pymlp.ngram.bins import frequency_bins
from pymlp.ngram.counts import NGramCounts, Occurrences
from pymlp.ngram.mixture import Mixture


class DeletedInterpolation(NGramModel):
    """An interpolation of relative frequencies, its weights learned on held-out text.

        p(w | h) = a_0(q) / V + a_1(q) p_1(w) + a_2(q) p_2(w | last token) + ...

    up to p_n(w | last n - 1 tokens), where p_k are relative frequencies in the training text, and
    those of the next smaller k where the context was never met there. The weights a(q) sum to 1;
    they depend on how often the longest context was met: q = ceil(-log((1 + frequency) / T)), T
    being the number of training tokens. They are learned by EM.

    Source: Jelinek and Mercer (1980), as in Bengio et al. (2003), section 4.1, with n = 3.

    Args:
        order: number of tokens n of the longest n-grams, from 1 to 16.
        vocab_size: number V of ids.
        reset: whether contexts stop at boundaries; see `NGramCounts`.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Attributes:
        weights: (bins, n + 1), a_0 to a_n for each q, once fitted.
    """

    _settings = ("order", "vocab_size", "reset")

    def __init__(self, order: int, vocab_size: int, reset: bool = True) -> None:
        self.order = checked_order("DeletedInterpolation", order)
        self.vocab_size = checked_vocab_size("DeletedInterpolation", vocab_size)
        self.reset = to_bool("DeletedInterpolation", "reset", reset)
        self._counts: NGramCounts | None = None
        self._mixture = Mixture("binned")

    def fit(
        self, ids: Stream, held_out: Stream, *, tolerance: float = 1e-5
    ) -> DeletedInterpolation:
        """Count in one text and learn the weights on another.

        Args:
            ids: (n,) integers from 0 to V - 1, n from 1 up; int32 is not copied.
            held_out: a stream of the same kind, which follows a boundary.
            tolerance: EM ends where a step raises the mean log-likelihood by less.

        Raises:
            TypeError, ValueError: ids are not as described.
        """
        counts = NGramCounts(ids, self.order, self.vocab_size, self.reset)
        log_probs, bins = self._components(counts, counts.look_up(held_out))
        self._mixture = Mixture("binned").fit(log_probs, bins, tolerance=tolerance)
        self._counts = counts
        return self

    @property
    def weights(self) -> Floats:
        weights: Floats = self._fitted(self._mixture.weights)
        return weights

    def log_probs(self, ids: Stream, begin: int = 0, end: int | None = None) -> Floats:
        counts: NGramCounts = self._fitted(self._counts)
        return self._mixture.log_probs(*self._components(counts, counts.look_up(ids, begin, end)))

    def _components(
        self, counts: NGramCounts, occurrences: Occurrences
    ) -> tuple[list[Floats], NDArray[np.int64]]:
        """log 1/V, log p_1, ..., log p_n of each position, and its q."""
        ngrams, contexts, _ = occurrences
        probs = [np.full(len(ngrams), 1 / self.vocab_size)]
        lower = probs[0]
        for ngram, context in zip(ngrams.T, contexts.T, strict=True):
            lower = np.divide(ngram, context, out=lower.copy(), where=context > 0)
            probs.append(lower)
        with np.errstate(divide="ignore"):
            return [np.log(p) for p in probs], frequency_bins(contexts[:, -1], counts.n_tokens)
