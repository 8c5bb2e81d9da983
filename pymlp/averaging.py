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
from pymlp.plain import unsupported_reason

# Snapshots within the reach: many, for a smooth average, but a small part of the work.
_SNAPSHOTS = 100


class Average:
    """The average of a model's parameters, itself a model.

    Args:
        model: is looked at, never changed.
        reach: in steps; after so many more, what the average was counts for 1/e.

    Attributes:
        period: steps between snapshots.
        step: updates done at the last snapshot, or where `load_state_dict` went on; 0 before.
    """

    def __init__(self, model: MLP, reach: int) -> None:
        self._source = model
        self._model = self._copy()
        self.period = max(1, reach // _SNAPSHOTS)
        self._least_weight = min(1.0, self.period / reach)
        # One assignment replaces both: an interruption leaves the old snapshot or the new one.
        self._snapshot = 0, [parameter.data for parameter in self._model.parameters()]

    @property
    def step(self) -> int:
        return self._snapshot[0]

    @property
    def model(self) -> MLP:
        """The model with the averaged parameters, in float32 at least.

        Before the first snapshot they are the parameters that training began with. It is copied
        anew from a model that something is attached to, for that may have come meanwhile.
        """
        if unsupported_reason(self._source) is not None:
            self._model = self._copy()
        for parameter, mean in zip(self._model.parameters(), self._snapshot[1], strict=True):
            parameter.data = mean
        return self._model

    def _copy(self) -> MLP:
        """A model like that of the source, with all that is attached to it."""
        try:
            model = copy.deepcopy(self._source).requires_grad_(False)
        except RuntimeError as error:
            reason = unsupported_reason(self._source) or "it cannot be copied"
            raise ValueError(f"Trainer: average does not apply: {reason} ({error})") from None
        for parameter in model.parameters():
            if parameter.dtype in (torch.bfloat16, torch.float16):
                parameter.data = parameter.data.float()
        return model

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take a snapshot after ``step`` updates, a multiple of ``period``."""
        weight = max(self._least_weight, self.period / step)
        pairs = zip(self._snapshot[1], self._source.parameters(), strict=True)
        self._snapshot = step, [mean.lerp(p.to(mean.dtype), weight) for mean, p in pairs]

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor], step: int) -> None:
        """Go on from what ``state_dict`` returned after ``step`` updates."""
        self.model.load_state_dict(state)
        self._snapshot = step, self._snapshot[1]
