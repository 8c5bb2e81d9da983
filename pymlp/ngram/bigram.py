"""The two bigram models of the lecture before: by counts, and as one layer of a network."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pymlp.arguments import to_float, to_int
from pymlp.ngram.base import (
    Floats,
    Ids,
    NGramModel,
    Stream,
    check_span,
    checked_ids,
    checked_vocab_size,
)
from pymlp.ngram.counts import NGramCounts


class Bigram(NGramModel):
    """Bigrams by counts with add-k smoothing: (c(v w) + k) / (c(v) + k V).

    Source: the lecture "Building makemore", part 1, with k = 1; Lidstone (1920). Sparse: memory is
    that of the distinct bigrams.

    Args:
        vocab_size: number V of ids.
        k: added to every count, from 0 up. With 0 a token that was never met has probability
            zero, and after a token that was never met all have 1 / V.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """

    _settings = ("vocab_size", "k")

    def __init__(self, vocab_size: int, k: float = 1.0) -> None:
        self.vocab_size = checked_vocab_size("Bigram", vocab_size)
        self.k = to_float("Bigram", "k", k, least=0)  # a float: counts are int32
        self._counts: NGramCounts | None = None

    def fit(self, ids: Stream) -> Bigram:
        """Count the pairs of a stream; its first token follows a boundary.

        Args:
            ids: (n,) integers from 0 to V - 1, n from 1 up; int32 is not copied.

        Raises:
            TypeError, ValueError: ids or `vocab_size` are not as described.
        """
        self._counts = NGramCounts(ids, 2, self.vocab_size, reset=False)
        return self

    def log_probs(self, ids: Stream, begin: int = 0, end: int | None = None) -> Floats:
        counts: NGramCounts = self._fitted(self._counts)
        ngrams, contexts, _ = counts.look_up(ids, begin, end)
        total = contexts[:, 1] + self.k * self.vocab_size
        uniform = np.full(len(ngrams), 1 / self.vocab_size)
        with np.errstate(divide="ignore"):
            log_probs: Floats = np.log(
                np.divide(ngrams[:, 1] + self.k, total, out=uniform, where=total > 0)
            )
        return log_probs


class NeuralBigram(NGramModel):
    """The same as a network of one layer: the logits after token v are row v of W.

    Gradient descent on the mean `F.cross_entropy` of all pairs, whole at each step: pairs are
    counted first, so a step costs V * V whatever the length of the text, and has the gradient of
    the lecture's loop over all examples.

    Source: the lecture "Building makemore", part 1: W = randn(V, V) of generator 2147483647,
    learning rate 50, 0.01 * (W**2).mean() for smoothing.

    Args:
        vocab_size: number V of ids. Training takes about 5 float32 matrices (V, V): 6.4 GB for
            17,905 words, of which `Bigram` with a small k is the exact optimum.
        steps: of gradient descent.
        lr: learning rate.
        l2: factor of (W**2).mean() in the loss.
        seed: of the generator that W is drawn from.
        max_bytes: the largest memory that training may take.

    Attributes:
        weight: W, (V, V) float32, once fitted.
        losses: the loss before each step of `fit`.

    Raises:
        TypeError, ValueError: an argument is not as described.
        ValueError: training would take more memory than `max_bytes`.
    """

    _settings = ("vocab_size", "steps", "lr", "l2", "seed")

    def __init__(
        self,
        vocab_size: int,
        steps: int = 100,
        lr: float = 50.0,
        l2: float = 0.01,
        seed: int = 2147483647,
        max_bytes: int = 2**31,
    ) -> None:
        vocab_size = checked_vocab_size("NeuralBigram", vocab_size)
        max_bytes = to_int("NeuralBigram", "max_bytes", max_bytes, 0)
        needed = 5 * 4 * vocab_size**2
        if needed > max_bytes:
            raise ValueError(
                f"NeuralBigram: vocab_size {vocab_size} takes about {needed / 2**30:.1f} GiB, more "
                f"than max_bytes {max_bytes}; Bigram needs only the bigrams that occur"
            )
        self.vocab_size = vocab_size
        self.steps = to_int("NeuralBigram", "steps", steps, 0)
        self.lr = to_float("NeuralBigram", "lr", lr)
        self.l2 = to_float("NeuralBigram", "l2", l2)
        self.seed = to_int("NeuralBigram", "seed", seed, -(2**63), most=2**64 - 1)
        self.losses: list[float] = []
        self._weight: Tensor | None = None

    def fit(self, ids: Stream) -> NeuralBigram:
        """Train on all pairs of a stream; its first token follows a boundary.

        Args:
            ids: (n,) integers from 0 to V - 1, n from 1 up.

        Raises:
            TypeError, ValueError: ids are not as described.
        """
        shares, rows = self._targets(checked_ids(ids, self.vocab_size))
        generator = torch.Generator("cpu").manual_seed(self.seed)
        square = (self.vocab_size, self.vocab_size)
        weight = torch.randn(square, generator=generator, device="cpu", requires_grad=True)
        self.losses = []
        for _ in range(self.steps):
            loss = F.cross_entropy(weight, rows, reduction="none") @ shares
            loss = loss + self.l2 * weight.square().mean()
            (gradient,) = torch.autograd.grad(loss, weight)
            weight.data.add_(gradient, alpha=-self.lr)
            self.losses.append(loss.item())
        self._weight = weight.detach()
        return self

    def _targets(self, stream: Ids) -> tuple[Tensor, Tensor]:
        """The share of pairs that each token begins (V,), the shares of its successors (V, V)."""
        if stream.size == 0:
            raise ValueError("NeuralBigram: there are no tokens to learn from")
        before = np.concatenate([[0], stream[:-1]]).astype(np.int64)
        pairs = np.bincount(before * self.vocab_size + stream, minlength=self.vocab_size**2)
        counts = torch.from_numpy(pairs).view((self.vocab_size,) * 2).float()
        totals = counts.sum(dim=1, keepdim=True)
        return totals[:, 0] / len(stream), counts / totals.clamp(min=1)

    @property
    def weight(self) -> Tensor:
        weight: Tensor = self._fitted(self._weight)
        return weight

    @torch.no_grad()
    def log_probs(self, ids: Stream, begin: int = 0, end: int | None = None) -> Floats:
        table = F.log_softmax(self.weight.double(), dim=1).numpy()
        stream = checked_ids(ids, self.vocab_size)
        end = len(stream) if end is None else end
        check_span(stream, begin, end)
        before = np.concatenate([[0], stream[:-1]])[begin:end]
        log_probs: Floats = table[before, stream[begin:end]]
        return log_probs
