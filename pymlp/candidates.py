"""The candidates of the sampled softmax: the same for a seed and a step, whichever engine asks."""

from __future__ import annotations

import torch
from torch import Tensor

from pymlp import _engine
from pymlp.config import TrainConfig
from pymlp.data import Examples
from pymlp.reference import Candidates


class CandidateSampler:
    """Draws what the targets of each step are compared with.

    They are the batch's targets and ``config.sampled_softmax`` words of noise, drawn with
    replacement from the unigram distribution of the examples to the power 3/4 (Mikolov et al.,
    2013): a function of seed, step and targets (csrc/engine/candidates.h), so that a run that is
    resumed needs no state.

    Args:
        examples: that batches are drawn from.
        vocab_size: V.
        config: its ``sampled_softmax``, seed and batch size.
        like: gives dtype and device.
    """

    def __init__(
        self, examples: Examples, vocab_size: int, config: TrainConfig, like: Tensor
    ) -> None:
        self._like = like
        self._drawn = _engine.Candidates(
            counts=examples.counts(vocab_size).cpu().numpy(),
            noise=config.sampled_softmax or 0,
            batch_size=config.batch_size,
            seed=config.seed,
        )

    def draw(self, step: int, targets: Tensor) -> Candidates:
        """Those of update number ``step``, counted from 0, whose targets (B,) these are."""
        words, places, offsets = self._drawn.draw(step, targets.long().cpu().numpy())
        device, dtype = self._like.device, self._like.dtype
        return Candidates(
            torch.from_numpy(words).to(device, torch.int64),
            torch.from_numpy(places).to(device, torch.int64),
            torch.from_numpy(offsets).to(device, dtype),
        )
