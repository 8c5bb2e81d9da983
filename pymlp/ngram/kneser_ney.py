"""Interpolated modified Kneser-Ney smoothing."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike

from pymlp import _engine
from pymlp.arguments import to_bool
from pymlp.ngram.arpa import write_arpa
from pymlp.ngram.base import (
    Floats,
    NGramModel,
    Stream,
    checked_ids,
    checked_order,
    checked_vocab_size,
)
from pymlp.ngram.counts import NGramCounts


class KneserNey(NGramModel):
    """Interpolated modified Kneser-Ney, without pruning, in double precision.

    With h' for h without its first token:

        p(w | h) = max(a(h w) - D(a(h w)), 0) / a(h) + gamma(h) p(w | h')
        a(h) = sum over w of a(h w),    gamma(h) = sum over w of D(a(h w)) / a(h)

    and 1 / V under the unigrams; p(w | h) = p(w | h') where h was never met. a(h w) is the number
    of occurrences for the largest order, and for smaller ones the number of distinct tokens before;
    with `reset`, n-grams that begin a line have nothing before them, and a is their occurrences.
    D is 0, D1, D2, D3+ for a = 0, 1, 2, 3 and more, with t_j the number of n-grams of that order
    with a = j:

        D_j = j - (j + 1) Y t_{j+1} / t_j,    Y = t_1 / (t_1 + 2 t_2)

    Where one of t_1 to t_3 is 0, or some D_j not in (0, j], as in tiny or artificial texts, the
    discounts of that order are 0.5, 1 and 1.5, as KenLM's `--discount_fallback` has them.

    Source: Chen and Goodman, "An empirical study of smoothing techniques for language modeling",
    TR-10-98, Harvard 1998, section 4.1, equations 26 and 27. With `reset` the estimates are those
    of KenLM's `lmplz` with `--discount_fallback` for a vocabulary of V tokens.

    Args:
        order: number of tokens n of the longest n-grams, from 1 to 16.
        vocab_size: number V of ids.
        reset: whether contexts stop at boundaries; see `NGramCounts`.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Attributes:
        counts: `NGramCounts` of the training text, once fitted.
    """

    _settings = ("order", "vocab_size", "reset")

    def __init__(self, order: int, vocab_size: int, reset: bool = True) -> None:
        self.order = checked_order("KneserNey", order)
        self.vocab_size = checked_vocab_size("KneserNey", vocab_size)
        self.reset = to_bool("KneserNey", "reset", reset)
        self._counts: NGramCounts | None = None
        self._native: _engine.KneserNey | None = None

    def fit(self, ids: Stream) -> KneserNey:
        """Count and estimate; what was fitted before is forgotten.

        Args:
            ids: (n,) integers from 0 to V - 1, n from 1 up; int32 is not copied.

        Raises:
            TypeError, ValueError: ids are not as described.
        """
        counts = NGramCounts(ids, self.order, self.vocab_size, self.reset)
        self._native = _engine.KneserNey(counts.native)
        self._counts = counts
        return self

    @property
    def counts(self) -> NGramCounts:
        counts: NGramCounts = self._fitted(self._counts)
        return counts

    @property
    def discounts(self) -> list[tuple[float, float, float]]:
        """D1, D2 and D3+ of each order from 1 up."""
        native: _engine.KneserNey = self._fitted(self._native)
        return [native.discounts(n) for n in range(1, self.order + 1)]

    def log_probs(self, ids: Stream, begin: int = 0, end: int | None = None) -> Floats:
        native: _engine.KneserNey = self._fitted(self._native)
        stream = checked_ids(ids, self.vocab_size)
        return native.log_probs(stream, begin, len(stream) if end is None else end)

    def write_arpa(self, path: str | PathLike[str], tokens: Iterable[str]) -> None:
        """Write the model as an ARPA file, which KenLM, SRILM and others read.

        The file is replaced atomically. Boundaries are `<s>` in contexts and `</s>` where they are
        predicted; probabilities and backoffs are logarithms to base 10.

        Args:
            path: of the file.
            tokens: the V spellings, of which that of id 0 is not used. `<unk>`, if it is one, is
                what readers of the file take for unknown words.

        Raises:
            RuntimeError: the model was not fitted.
            TypeError: a spelling is no str.
            ValueError: contexts run across lines (`reset=False`), which ARPA files cannot say; or
                a spelling is empty, repeated, `<s>`, `</s>`, `<UNK>`, or holds white space, NUL or
                a surrogate.
        """
        write_arpa(path, self.counts, self._fitted(self._native), tokens)
