"""Log-probabilities of lines under a model, in the manner of KenLM (Heafield, 2011).

Tokens that are not in the vocabulary (`oov`) have no probability unless the vocabulary has a token
for unknown words, which then stands for them. Without one they add nothing to a score, are counted,
and what follows them is judged as if a line began there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from pymlp import reference
from pymlp.data import Line, TokenStream, Vocabulary, encode
from pymlp.evaluate import perplexity
from pymlp.inference import token_losses
from pymlp.model import MLP

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


def score(
    model: MLP | reference.MLP,
    vocabulary: Vocabulary,
    lines: Sequence[Line],
    *,
    bos: bool = True,
    eos: bool = True,
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

    Raises:
        TypeError: ``lines`` is one str, or not what the vocabulary is of.
        ValueError: the vocabulary is of another size than the model's, or a line holds a line
            break.
    """
    return [line for part in _parts(lines) for line in _score(model, vocabulary, part, bos, eos)]


class Scorer:
    """The same for one line at a time, and token by token.

    Args:
        model: on any device.
        vocabulary: of the model.

    Raises:
        ValueError: the vocabulary is of another size than the model's.

    Example:
        >>> scorer = pymlp.Scorer(model, vocabulary)
        >>> scorer.score("emma")  # nats; divide by log(10) for KenLM's figure
        >>> state = scorer.begin_state()
        >>> log_prob, state = scorer.base_score(state, "e")
    """

    def __init__(self, model: MLP | reference.MLP, vocabulary: Vocabulary) -> None:
        _check_vocabulary(model, vocabulary)
        self.model = model
        self.vocabulary = vocabulary

    def score(self, line: Line, bos: bool = True, eos: bool = True) -> float:
        """The log-probability of a line in nats; arguments as `pymlp.score`."""
        return score(self.model, self.vocabulary, [line], bos=bos, eos=eos)[0].log_prob

    def perplexity(self, line: Line) -> float:
        """exp of the mean negative log-probability of the line's tokens, its end included."""
        return score(self.model, self.vocabulary, [line])[0].perplexity

    def full_scores(self, line: Line, bos: bool = True, eos: bool = True) -> Iterator[TokenScore]:
        """Each token of the line that is scored, and the unknown ones with a log-probability of 0.

        The end of the line is spelled as the vocabulary spells it, ``"."`` or ``"</s>"``.
        """
        block = _Block(self.model, self.vocabulary, [line], bos, eos)
        log_probs = iter(block.log_probs[block.scored].tolist())
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
        loss = token_losses(self.model, torch.tensor([state]), torch.tensor([target]))
        return -loss.item(), (*state[1:], target)


class _Block:
    """Lines, cut where a token is unknown, and the losses of all their examples."""

    def __init__(
        self,
        model: MLP | reference.MLP,
        vocabulary: Vocabulary,
        lines: Sequence[Line],
        bos: bool,
        eos: bool,
    ) -> None:
        _check_vocabulary(model, vocabulary)
        block_size = model.config.block_size
        ids = encode(lines, vocabulary)
        ends, unknown = ids == 0, ids < 0
        self.known = ~unknown[~ends]
        # In place of an unknown token stands a boundary: what follows begins anew.
        stream = TokenStream(torch.from_numpy(np.where(unknown, np.int32(0), ids)))
        examples = stream.examples(block_size)
        self.log_probs = -token_losses(model, examples.tokens, examples.targets).numpy()
        self.scored = ~unknown if eos else ids > 0
        if not bos:
            position = np.arange(len(ids))
            last_cut = np.maximum.accumulate(np.where(ids > 0, -1, position))
            begins = np.append(0, last_cut + 1)[:-1]
            self.scored &= position - begins >= block_size
        self.line = np.cumsum(ends) - ends
        oov = unknown if vocabulary.unknown is None else ids == vocabulary.ids[vocabulary.unknown]
        self.n_oov = np.bincount(self.line[oov], minlength=len(lines))


def _score(
    model: MLP | reference.MLP, vocabulary: Vocabulary, lines: Sequence[Line], bos: bool, eos: bool
) -> Iterator[LineScore]:
    block = _Block(model, vocabulary, lines, bos, eos)
    line = block.line[block.scored]
    totals = np.bincount(line, weights=block.log_probs[block.scored], minlength=len(lines))
    counts = np.bincount(line, minlength=len(lines))
    return map(LineScore, totals.tolist(), counts.tolist(), block.n_oov.tolist())


def _parts(lines: Sequence[Line]) -> Iterable[Sequence[Line]]:
    """The lines in order, in parts of about `_TOKENS_AT_ONCE` tokens."""
    if isinstance(lines, str):
        raise TypeError(f"score: lines must be a list of lines, got one str {lines[:20]!r}")
    start = tokens = 0
    for end, line in enumerate(lines, 1):
        tokens += len(line)
        if tokens >= _TOKENS_AT_ONCE or end == len(lines):
            yield lines[start:end]
            start, tokens = end, 0


def _check_vocabulary(model: MLP | reference.MLP, vocabulary: Vocabulary) -> None:
    if model.config.vocab_size != len(vocabulary):
        raise ValueError(
            f"score: the vocabulary has {len(vocabulary)} tokens, "
            f"the model {model.config.vocab_size}: give the vocabulary it was trained with"
        )
