"""Log-probabilities of lines under a model, in the manner of KenLM (Heafield, 2011).

Tokens that are not in the vocabulary (`oov`) have no probability unless the vocabulary has a token
for unknown words, which then stands for them. Without one they add nothing to a score, are counted,
and what follows them is judged as if a line began there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pymlp import reference
from pymlp.data import Line, TokenStream, Vocabulary, encode
from pymlp.evaluate import perplexity
from pymlp.inference import log_normalisers, token_logits, token_losses
from pymlp.model import MLP

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Tokens that are scored together; only memory depends on it.
_TOKENS_AT_ONCE = 2**18

# The context of the next token, the oldest id first.
State = tuple[int, ...]


class TokenScore(NamedTuple):
    """One token of a line: its log-probability in nats, its spelling, whether it is unknown."""

    log_prob: float
    token: str
    oov: bool


class LineScore(NamedTuple):
    """One line: its log-probability in nats, how many tokens that is of, how many are unknown."""

    log_prob: float
    n_tokens: int
    n_oov: int

    @property
    def bits(self) -> float:
        """The log-probability in bits (logarithm to base 2)."""
        return self.log_prob / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(-log_prob / n_tokens); nan if no token was scored."""
        return perplexity(-self.log_prob / self.n_tokens) if self.n_tokens else math.nan


class LogZ(NamedTuple):
    """How far unnormalised scores are off: log Z in nats, over ``n_tokens`` tokens.

    A log-probability is the unnormalised score less log Z; the perplexity of many tokens is that of
    their unnormalised scores times exp(``mean``).
    """

    mean: float
    largest: float
    n_tokens: int


def score(
    model: MLP | reference.MLP,
    vocabulary: Vocabulary,
    lines: Sequence[Line],
    *,
    bos: bool = True,
    eos: bool = True,
    normalized: bool = True,
) -> list[LineScore]:
    """The log-probability of each line.

    Equivalent to, for a line of known tokens:
    ``-F.cross_entropy(model(tokens), targets, reduction="sum")`` of its `pymlp.data.examples`.

    Args:
        model: on any device.
        vocabulary: of the model.
        lines: strings, or lists of words.
        bos: lines begin where a line begins. Else the first ``block_size`` tokens are context for
            the others and are not scored.
        eos: the end of the line is scored as a token.
        normalized: False takes the logits for log-probabilities, without the sum over the
            vocabulary, which is most of the work: for models trained with
            ``TrainConfig(z_loss=...)``. `log_z` says what that neglects.

    Raises:
        TypeError: ``lines`` is one str, or not what the vocabulary is of.
        ValueError: the vocabulary is of another size than the model's, or a line holds a line
            break.
    """
    _check_vocabulary(model, vocabulary)
    parts = _parts(lines, vocabulary, model.config.block_size, bos, eos)
    return [line for part in parts for line in part.score(part.log_probs(model, normalized))]


def log_z(
    model: MLP | reference.MLP,
    vocabulary: Vocabulary,
    lines: Sequence[Line],
    *,
    bos: bool = True,
    eos: bool = True,
    most: int = 1000,
) -> LogZ:
    """What ``score(..., normalized=False)`` of the lines neglects; nan where nothing is scored.

    Args:
        model, vocabulary, lines, bos, eos: as in `score`.
        most: tokens that are looked at, evenly spaced over all of them.

    Raises:
        TypeError, ValueError: as `score`; ``most`` is less than 1.
    """
    if most < 1:
        raise ValueError(f"log_z: most must be at least 1, got {most}")
    _check_vocabulary(model, vocabulary)
    parts = _parts(lines, vocabulary, model.config.block_size, bos, eos)
    tokens = [part.tokens[torch.from_numpy(part.scored)] for part in parts]
    contexts = torch.cat([torch.zeros(0, model.config.block_size, dtype=torch.int64), *tokens])
    step = max(1, math.ceil(len(contexts) / most))
    found = log_normalisers(model, contexts[::step])
    if len(found) == 0:
        return LogZ(math.nan, math.nan, 0)
    return LogZ(found.mean().item(), found.abs().max().item(), len(found))


class Scorer:
    """The same for one line at a time, and token by token.

    Args:
        model: on any device.
        vocabulary: of the model.
        normalized: as in `score`.

    Raises:
        ValueError: the vocabulary is of another size than the model's.

    Example:
        >>> scorer = pymlp.Scorer(model, vocabulary)
        >>> scorer.score("emma")  # nats; divide by log(10) for KenLM's figure
        >>> state = scorer.begin_state()
        >>> log_prob, state = scorer.base_score(state, "e")
    """

    def __init__(
        self, model: MLP | reference.MLP, vocabulary: Vocabulary, *, normalized: bool = True
    ) -> None:
        _check_vocabulary(model, vocabulary)
        self.model = model
        self.vocabulary = vocabulary
        self.normalized = normalized

    def score(self, line: Line, bos: bool = True, eos: bool = True) -> float:
        """The log-probability of a line in nats; arguments as `pymlp.score`."""
        return self._score(line, bos, eos).log_prob

    def perplexity(self, line: Line) -> float:
        """exp of the mean negative log-probability of the line's tokens, its end included."""
        return self._score(line).perplexity

    def _score(self, line: Line, bos: bool = True, eos: bool = True) -> LineScore:
        (found,) = score(
            self.model, self.vocabulary, [line], bos=bos, eos=eos, normalized=self.normalized
        )
        return found

    def full_scores(self, line: Line, bos: bool = True, eos: bool = True) -> Iterator[TokenScore]:
        """Each token of the line that is scored, and the unknown ones with a log-probability of 0.

        The end of the line is spelled as the vocabulary spells it, ``"."`` or ``"</s>"``.
        """
        block = _Block(self.vocabulary, [line], self.model.config.block_size, bos, eos)
        log_probs = iter(block.log_probs(self.model, self.normalized)[block.scored].tolist())
        context = 0 if bos else self.model.config.block_size
        seen = 0
        for token, known in zip(self.vocabulary.split(line), block.known.tolist(), strict=True):
            if not known:
                seen = 0
                yield TokenScore(0.0, token, True)
                continue
            seen += 1
            if seen > context:
                yield TokenScore(next(log_probs), token, token not in self.vocabulary.ids)
        yield from (TokenScore(end, self.vocabulary.tokens[0], False) for end in log_probs)

    def begin_state(self) -> State:
        """Where a line begins."""
        return (0,) * self.model.config.block_size

    def base_score(self, state: State, token: str | None) -> tuple[float, State]:
        """The log-probability in nats of ``token`` in a state, and the state after it.

        Args:
            state: from `begin_state` or an earlier call.
            token: None is the end of the line.
        """
        target = 0 if token is None else self.vocabulary.find(token)
        if target is None:
            return 0.0, self.begin_state()
        log_prob = _log_probs(
            self.model, torch.tensor([state]), torch.tensor([target]), self.normalized
        )
        return log_prob.item(), (*state[1:], target)


class _Block:
    """Lines, cut where a token is unknown, and all their examples."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        lines: Sequence[Line],
        block_size: int,
        bos: bool,
        eos: bool,
    ) -> None:
        ids = encode(lines, vocabulary)
        ends, unknown = ids == 0, ids < 0
        self.known = ~unknown[~ends]
        # In place of an unknown token stands a boundary: what follows begins anew.
        stream = TokenStream(torch.from_numpy(np.where(unknown, np.int32(0), ids)))
        examples = stream.examples(block_size)
        self.tokens, self.targets = examples.tokens, examples.targets
        self.scored = ~unknown if eos else ids > 0
        if not bos:
            position = np.arange(len(ids))
            last_cut = np.maximum.accumulate(np.where(ids > 0, -1, position))
            begins = np.append(0, last_cut + 1)[:-1]
            self.scored &= position - begins >= block_size
        self.line = np.cumsum(ends) - ends
        oov = unknown if vocabulary.unknown is None else ids == vocabulary.ids[vocabulary.unknown]
        self.n_oov = np.bincount(self.line[oov], minlength=len(lines))

    def log_probs(self, model: MLP | reference.MLP, normalized: bool) -> NDArray[np.float64]:
        """Of all examples, in order."""
        found: NDArray[np.float64] = _log_probs(
            model, self.tokens, self.targets, normalized
        ).numpy()
        return found

    def score(self, log_probs: NDArray[np.float64]) -> Iterator[LineScore]:
        """The lines in order."""
        line = self.line[self.scored]
        n_lines = len(self.n_oov)
        totals = np.bincount(line, weights=log_probs[self.scored], minlength=n_lines)
        counts = np.bincount(line, minlength=n_lines)
        return map(LineScore, totals.tolist(), counts.tolist(), self.n_oov.tolist())


def _log_probs(
    model: MLP | reference.MLP, tokens: Tensor, targets: Tensor, normalized: bool
) -> Tensor:
    if normalized:
        return -token_losses(model, tokens, targets)
    return token_logits(model, tokens, targets)


def _parts(
    lines: Sequence[Line], vocabulary: Vocabulary, block_size: int, bos: bool, eos: bool
) -> Iterator[_Block]:
    """The lines in order, in parts of about `_TOKENS_AT_ONCE` tokens."""
    if isinstance(lines, str):
        raise TypeError(f"score: lines must be a list of lines, got one str {lines[:20]!r}")
    start = tokens = 0
    for end, line in enumerate(lines, 1):
        tokens += len(line)
        if tokens >= _TOKENS_AT_ONCE or end == len(lines):
            yield _Block(vocabulary, lines[start:end], block_size, bos, eos)
            start, tokens = end, 0


def _check_vocabulary(model: MLP | reference.MLP, vocabulary: Vocabulary) -> None:
    if model.config.vocab_size != len(vocabulary):
        raise ValueError(
            f"score: the vocabulary has {len(vocabulary)} tokens, "
            f"the model {model.config.vocab_size}: give the vocabulary it was trained with"
        )
