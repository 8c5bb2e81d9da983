"""Code that all n-gram models share: checked token streams, perplexity, single probabilities."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pymlp.arguments import to_int
from pymlp.data import Dataset, Examples, StreamExamples, TokenStream
from pymlp.evaluate import perplexity

Ids = NDArray[np.int32]
Floats = NDArray[np.float64]


# Types that are read as a stream. A split, such as `Dataset.train`, gives its own part.
Stream: TypeAlias = ArrayLike | TokenStream | Examples


def checked_order(owner: str, order: Any) -> int:
    """The length of the longest n-grams, which the native counts bound."""
    return to_int(owner, "order", order, 1, most=16)


def checked_vocab_size(owner: str, vocab_size: Any) -> int:
    """The number of ids, which are int32."""
    return to_int(owner, "vocab_size", vocab_size, 1, most=2**31 - 1)


def shown(thing: object, names: tuple[str, ...]) -> str:
    """The repr of a model: its class and those of its settings."""
    settings = ", ".join(f"{name}={getattr(thing, name)!r}" for name in names)
    return f"{type(thing).__name__}({settings})"


def checked_ids(ids: Stream, vocab_size: int) -> Ids:
    """A token stream as a vector of int32, not copied where it is one, be it memory-mapped.

    Raises:
        TypeError: the ids are not integers, or a data set or a table of examples.
        ValueError: they do not have one dimension, or are not all from 0 to `vocab_size` - 1.
    """
    if isinstance(ids, (Dataset, Examples)) and not isinstance(ids, StreamExamples):
        raise TypeError(
            f"a token stream holds integers, got a {type(ids).__name__}: pass data.train, or the "
            "ids of a TokenStream"
        )
    if isinstance(ids, StreamExamples):
        ids = ids.stream.readable[ids.begin : ids.end]
    elif isinstance(ids, TokenStream):
        ids = ids.readable
    stream = np.asarray(ids)
    if stream.ndim != 1:
        raise ValueError(f"a token stream has shape (n,), got {stream.shape}")
    if stream.size and stream.dtype.kind not in "iu":
        raise TypeError(f"a token stream holds integers, got {stream.dtype}")
    if stream.size and not 0 <= stream.min() <= stream.max() < vocab_size:
        position = int(((stream < 0) | (stream >= vocab_size)).argmax())
        raise ValueError(
            f"ids must be from 0 to {vocab_size - 1}, got {stream[position]} at position {position}"
        )
    return np.ascontiguousarray(stream, np.int32)


def check_span(stream: Ids, begin: int, end: int) -> None:
    """Raises:
    ValueError: begin and end are not positions of the stream, in order.
    """
    if not 0 <= begin <= end <= len(stream):
        raise ValueError(
            f"begin and end must be positions of the {len(stream)} ids, in order, "
            f"got {begin} and {end}"
        )


class NGramModel(ABC):
    """A model that gives every token of a stream a probability after those before it.

    Attributes:
        vocab_size: number V of ids; the probabilities of 0 to V - 1 after any context sum to 1.
    """

    vocab_size: int
    _settings: ClassVar[tuple[str, ...]] = ("vocab_size",)

    def __repr__(self) -> str:
        return shown(self, self._settings)

    @abstractmethod
    def log_probs(self, ids: Stream, begin: int = 0, end: int | None = None) -> Floats:
        """log p of the tokens at positions begin to end of a stream, each after those before it.

        Args:
            ids: (n,) integers from 0 to V - 1; int32 is not copied. Or a `TokenStream`, or a split
                such as `Dataset.dev`, before which are boundaries.
            begin, end: the positions; those before `begin` are read as contexts. None: n.

        Returns:
            (end - begin,) float64, in nats.

        Raises:
            RuntimeError: the model was not fitted.
            TypeError, ValueError: ids or positions are not as described.
        """

    def prob(self, context: Sequence[int], token: int) -> float:
        """Probability of `token` after `context`, before which are boundaries.

        Raises:
            RuntimeError, TypeError, ValueError: as `log_probs`.
        """
        stream = np.array([*context, token], np.int64)
        return math.exp(self.log_probs(stream, len(stream) - 1)[0])

    def perplexity(self, ids: Stream, begin: int = 0, end: int | None = None) -> float:
        """exp of the mean of -`log_probs`; inf where a token has probability 0.

        Raises:
            RuntimeError, TypeError, ValueError: as `log_probs`, or there is no position.
        """
        log_probs = self.log_probs(ids, begin, end)
        if log_probs.size == 0:
            raise ValueError("perplexity: there are no positions to take the mean of")
        return perplexity(-float(log_probs.mean()))

    def _fitted(self, value: Any) -> Any:
        """`value`, which `fit` sets."""
        if value is None:
            raise RuntimeError(f"{type(self).__name__}: call fit(ids) before asking for anything")
        return value
