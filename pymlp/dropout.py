"""The masks of dropout: the same for a seed and a step, whichever engine asks for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pymlp.config import TrainConfig
from pymlp.model import MLPConfig
from pymlp.reference import DropoutMasks


def dropout_masks(
    sizes: MLPConfig, config: TrainConfig, step: int, like: Tensor
) -> DropoutMasks | None:
    """The masks of update number ``step``, counted from 0; None for a rate of 0.

    A unit of an example is dropped with probability ``config.dropout``; the others are scaled by
    1 / (1 - rate), so that nothing has to change when the model is used (Srivastava et al., 2014,
    as torch.nn.Dropout does it).

    Args:
        sizes: of the model.
        config: its dropout, seed and batch size.
        step: another one has other masks.
        like: gives dtype and device.
    """
    if config.dropout == 0.0:
        return None
    # Counter-based (Salmon et al., 2011): a stream for every pair of seed and step, so that a run
    # that is resumed needs no state.
    generator = np.random.Philox(key=[config.seed, step])
    # In units of 2^-64; a rate this close to 1 is none that `TrainConfig` allows.
    threshold = np.uint64(int(config.dropout * 2.0**64))

    def mask(columns: int) -> Tensor:
        draws = generator.random_raw(config.batch_size * columns)
        kept = torch.from_numpy(draws >= threshold).view(config.batch_size, columns)
        return kept.to(like.device, like.dtype) / (1.0 - config.dropout)

    return DropoutMasks(mask(sizes.block_size * sizes.n_embd), mask(sizes.n_hidden))
