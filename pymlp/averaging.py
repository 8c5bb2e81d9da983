"""An average of the parameters along a run: `Average`.

The noise of single steps averages out, so the average stands where a much lower learning rate would
have led (Polyak and Juditsky, 1992; Izmailov et al., 2018). It is an exponential moving average of
snapshots, hundreds of which make up its reach, and while there are fewer, their plain mean.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from pymlp.model import MLP

# Snapshots within the reach: many, for a smooth average, but a small part of the work.
_SNAPSHOTS = 100


class Average:
    """The average of a model's parameters, itself a model.

    Args:
        model: is looked at, never changed.
        reach: in steps; after so many more, what the average was counts for 1/e.

    Attributes:
        model: has the averaged parameters, in float32 at least; before the first snapshot, those
            that ``model`` began with.
        period: steps between snapshots.
    """

    def __init__(self, model: MLP, reach: int) -> None:
        self._source = model
        self.model = copy.deepcopy(model).requires_grad_(False)
        for parameter in self.model.parameters():
            if parameter.dtype in (torch.bfloat16, torch.float16):
                parameter.data = parameter.data.float()
        self.period = max(1, reach // _SNAPSHOTS)
        self._least_weight = min(1.0, self.period / reach)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take a snapshot after ``step`` updates, a multiple of ``period``."""
        weight = max(self._least_weight, self.period / step)
        for mean, parameter in zip(self.model.parameters(), self._source.parameters(), strict=True):
            mean.lerp_(parameter.to(mean.dtype), weight)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.model.load_state_dict(state)
