"""The masks of dropout: the same for a seed and a step, whichever engine asks for them."""

from __future__ import annotations

import torch
from torch import Tensor

from pymlp import _engine
from pymlp.config import TrainConfig
from pymlp.model import MLPConfig
from pymlp.reference import DropoutMasks


def dropout_masks(
    sizes: MLPConfig, config: TrainConfig, step: int, like: Tensor
) -> DropoutMasks | None:
    """The masks of update number ``step``, counted from 0; None for a rate of 0.

    A unit of an example is dropped with probability ``config.dropout``; the others are scaled by
    1 / (1 - rate), so that nothing has to change when the model is used (Srivastava et al., 2014,
    as torch.nn.Dropout does it). Which are dropped is a function of seed, step, example and unit
    (csrc/engine/dropout.h), so that a run that is resumed needs no state.

    Args:
        sizes: of the model.
        config: its dropout, seed and batch size.
        step: another one has other masks.
        like: gives dtype and device.
    """
    if config.dropout == 0.0:
        return None

    def mask(hidden: bool, columns: int) -> Tensor:
        kept = _engine.dropout_kept(
            seed=config.seed,
            step=step,
            hidden=hidden,
            p=config.dropout,
            rows=config.batch_size,
            columns=columns,
        )
        return torch.from_numpy(kept).to(like.device, like.dtype) / (1.0 - config.dropout)

    return DropoutMasks(mask(False, sizes.block_size * sizes.n_embd), mask(True, sizes.n_hidden))
