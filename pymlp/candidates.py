"""The candidates of the sampled softmax: the same for a seed and a step, whichever engine asks."""

from __future__ import annotations

import torch
from torch import Tensor

from pymlp import _engine
from pymlp.config import TrainConfig
from pymlp.data import Examples
from pymlp.reference import Candidates


def native_candidates(
    examples: Examples, vocab_size: int, config: TrainConfig
) -> _engine.Candidates | None:
    """The sampler of the candidates in C++; None for the exact softmax.

    The candidates are the batch's targets and ``config.sampled_softmax`` words of noise, drawn
    with replacement from the unigram distribution of the examples to the power 3/4 (Mikolov et
    al., 2013). All targets are read once, to be counted.

    Args:
        examples: that batches are drawn from.
        vocab_size: V.
        config: its ``sampled_softmax``, seed and batch size.
    """
    if config.sampled_softmax is None:
        return None
    return _engine.Candidates(
        counts=examples.counts(vocab_size).cpu().numpy(),
        noise=config.sampled_softmax,
        batch_size=config.batch_size,
        seed=config.seed,
    )


class CandidateSampler:
    """Draws what the targets of each step are compared with.

    A function of the examples, seed, step and targets (csrc/engine/candidates.h), so that a run
    that is resumed needs no state.

    Args:
        drawn: from `native_candidates`.
        like: gives dtype and device.
    """

    def __init__(self, drawn: _engine.Candidates, like: Tensor) -> None:
        self._drawn = drawn
        self._like = like

    def draw(self, step: int, targets: Tensor) -> Candidates:
        """The candidates of update number ``step``, counted from 0, with its targets (B,)."""
        on_cpu = targets.to("cpu", torch.int64).contiguous()
        words, places, offsets = self._drawn.draw(step, on_cpu.numpy())
        device, dtype = self._like.device, self._like.dtype
        return Candidates(
            torch.from_numpy(words).to(device, torch.int64),
            torch.from_numpy(places).to(device, torch.int64),
            torch.from_numpy(offsets).to(device, dtype),
        )
