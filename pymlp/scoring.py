"""Log-probabilities of lines under a model, in the manner of KenLM (Heafield, 2011).

Tokens that are not in the vocabulary (`oov`) have no probability unless the vocabulary has a token
for unknown words, which then stands for them. Without one they add nothing to a score, are counted,
and what follows them is judged as if a line began there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pymlp import reference
from pymlp.arguments import to_int
from pymlp.data import Line, TokenStream, Vocabulary, encode
from pymlp.evaluate import perplexity
from pymlp.inference import log_normalisers, token_logits, token_losses
from pymlp.lines import as_lines
from pymlp.model import MLP
from pymlp.plain import check_model

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
    lines: Iterable[Line],
    *,
    bos: bool = True,
    eos: bool = True,
    normalized: bool = True,
    across: bool = False,
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
        across: the lines are a text: the context of a line runs on from the lines before it, as
            models of running text were trained (`pymlp.data.DataConfig`).

    Raises:
        TypeError: ``model`` is of another kind, such as DDP; or as `pymlp.lines.as_lines`, or the
            lines are not what the vocabulary is of.
        ValueError: the vocabulary is of another size than the model's, or a line holds a line
            break.
    """
    text = Text(model, vocabulary, bos=bos, eos=eos, normalized=normalized, across=across)
    return text.score(lines)


class Text:
    """Scores the lines of one text, a part of them at a time; see `score`.

    Args:
        model, vocabulary, bos, eos, normalized, across: as in `score`.
    """

    def __init__(
        self,
        model: MLP | reference.MLP,
        vocabulary: Vocabulary,
        *,
        bos: bool = True,
        eos: bool = True,
        normalized: bool = True,
        across: bool = False,
    ) -> None:
        _check_vocabulary(model, vocabulary)
        self._model = model
        self._normalized = normalized
        self._reader = _Reader(vocabulary, model.config.block_size, bos, eos, across)

    def score(self, lines: Iterable[Line]) -> list[LineScore]:
        """The lines that follow those of the call before."""
        return [
            line
            for block in self._reader.read(lines)
            for line in block.score(block.log_probs(self._model, self._normalized))
        ]

    def full_scores(self, line: Line) -> list[TokenScore]:
        """The tokens of the line that follows, as `Scorer.full_scores`."""
        (line,) = as_lines([line], "score")
        (block,) = self._reader.read([line])
        log_probs = block.log_probs(self._model, self._normalized)
        return list(self._reader.spell(line, block, log_probs[block.scored].tolist()))


def log_z(
    model: MLP | reference.MLP,
    vocabulary: Vocabulary,
    lines: Iterable[Line],
    *,
    bos: bool = True,
    eos: bool = True,
    across: bool = False,
    most: int = 1000,
) -> LogZ:
    """The log Z that ``score(..., normalized=False)`` neglects; nan where nothing is scored.

    Args:
        model, vocabulary, lines, bos, eos, across: as in `score`.
        most: tokens that are looked at, evenly spaced over all of them.

    Raises:
        TypeError, ValueError: as `score`; ``most`` is less than 1.
    """
    most = to_int("log_z", "most", most, 1)
    _check_vocabulary(model, vocabulary)
    reader = _Reader(vocabulary, model.config.block_size, bos, eos, across)
    tokens = [block.tokens.numpy()[block.scored] for block in reader.read(lines)]
    contexts = np.concatenate([np.zeros((0, model.config.block_size), np.int64), *tokens])
    step = max(1, math.ceil(len(contexts) / most))
    found = log_normalisers(model, torch.from_numpy(contexts[::step].copy()))
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

    def __repr__(self) -> str:
        return f"Scorer({self.model.config}, {self.vocabulary!r})"

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
        text = Text(self.model, self.vocabulary, bos=bos, eos=eos, normalized=self.normalized)
        yield from text.full_scores(line)

    def begin_state(self) -> State:
        """The state at the beginning of a line."""
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
        context, following = (torch.tensor([x], device="cpu") for x in (state, target))
        log_prob = _log_probs(self.model, context, following, self.normalized)
        return float(log_prob[0]), (*state[1:], target)


class _Reader:
    """Makes blocks of the lines of one text."""

    def __init__(
        self, vocabulary: Vocabulary, block_size: int, bos: bool, eos: bool, across: bool = False
    ) -> None:
        self._vocabulary = vocabulary
        self._block_size = block_size
        self._bos = bos
        self._eos = eos
        self._across = across
        self._before = np.zeros(block_size, np.int32)  # the ids before the next line

    def read(self, lines: Iterable[Line]) -> Iterator[_Block]:
        """The lines in order, in blocks of about `_TOKENS_AT_ONCE` tokens."""
        lines = as_lines(lines, "score")
        start = tokens = 0
        for end, line in enumerate(lines, 1):
            tokens += len(line)
            if tokens >= _TOKENS_AT_ONCE or end == len(lines):
                yield self._block(lines[start:end])
                start, tokens = end, 0

    def spell(self, line: Line, block: _Block, scores: list[float]) -> Iterator[TokenScore]:
        """The tokens of a ``line`` that is a block, with the ``scores`` of those that count."""
        log_probs = iter(scores)
        context = 0 if self._bos else self._block_size
        seen = 0
        words = self._vocabulary.split(line)
        for token, known in zip(words, block.known.tolist(), strict=True):
            if not known:
                seen = 0
                yield TokenScore(0.0, token, True)
                continue
            seen += 1
            if seen > context:
                yield TokenScore(next(log_probs), token, token not in self._vocabulary.ids)
        yield from (TokenScore(end, self._vocabulary.tokens[0], False) for end in log_probs)

    def _block(self, lines: Sequence[Line]) -> _Block:
        ids = encode(lines, self._vocabulary)
        ends, unknown = ids == 0, ids < 0
        # In place of an unknown token stands a boundary: what follows begins anew.
        text = np.concatenate([self._before, np.where(unknown, np.int32(0), ids)])
        self._before = text[-self._block_size :].copy()
        stream = TokenStream(torch.from_numpy(text), reset=not self._across)
        examples = stream.examples(self._block_size, begin=self._block_size)
        scored = ~unknown if self._eos else ids > 0
        if not self._bos:
            position = np.arange(len(ids))
            last_cut = np.maximum.accumulate(np.where(ids > 0, -1, position))
            begins = np.append(0, last_cut + 1)[:-1]
            scored &= position - begins >= self._block_size
        stands = self._vocabulary.unknown
        oov = unknown if stands is None else ids == self._vocabulary.ids[stands]
        line = np.cumsum(ends) - ends
        return _Block(
            examples.tokens,
            examples.targets,
            known=~unknown[~ends],
            scored=scored,
            line=line,
            n_oov=np.bincount(line[oov], minlength=len(lines)),
        )


@dataclass(frozen=True, eq=False)
class _Block:
    """Lines and all their examples.

    Attributes:
        tokens, targets: (N, T) and (N,), the examples.
        known: of each token, line ends aside, whether it has an id.
        scored: (N,), of each example, whether it counts.
        line: (N,), the number of its line.
        n_oov: tokens of each line that are out of vocabulary.
    """

    tokens: Tensor
    targets: Tensor
    known: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    line: NDArray[np.int64]
    n_oov: NDArray[np.int64]

    def log_probs(self, model: MLP | reference.MLP, normalized: bool) -> NDArray[np.float64]:
        """The log-probabilities of all examples, in order."""
        return _log_probs(model, self.tokens, self.targets, normalized)

    def score(self, log_probs: NDArray[np.float64]) -> Iterator[LineScore]:
        """The lines in order."""
        line = self.line[self.scored]
        n_lines = len(self.n_oov)
        totals = np.bincount(line, weights=log_probs[self.scored], minlength=n_lines)
        counts = np.bincount(line, minlength=n_lines)
        return map(LineScore, totals.tolist(), counts.tolist(), self.n_oov.tolist())


def _log_probs(
    model: MLP | reference.MLP, tokens: Tensor, targets: Tensor, normalized: bool
) -> NDArray[np.float64]:
    # numpy starts no threads: torch's own do not survive a fork.
    found: NDArray[np.float64]
    if normalized:
        found = -token_losses(model, tokens, targets).numpy()
    else:
        found = token_logits(model, tokens, targets).numpy()
    return found


def _check_vocabulary(model: MLP | reference.MLP, vocabulary: Vocabulary) -> None:
    check_model("score", model)
    if model.config.vocab_size != len(vocabulary):
        raise ValueError(
            f"score: the vocabulary has {len(vocabulary)} tokens, "
            f"the model {model.config.vocab_size}: give the vocabulary it was trained with"
        )
