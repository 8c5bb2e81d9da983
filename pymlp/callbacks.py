"""How others follow a training run: the base class of everything that a `Trainer` reports to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pymlp.history import Evaluation

if TYPE_CHECKING:
    from pymlp.trainer import Trainer


class Callback:
    """The progress of a `Trainer`; override what is of interest.

    A method that raises, or is interrupted, is called again with the same when `fit` goes on.
    """

    def on_steps(self, trainer: Trainer, losses: Tensor) -> None:
        """A few steps (about 50 ms) are done; ``losses`` (K,) are theirs."""

    def on_log(self, trainer: Trainer, loss: float) -> None:
        """``log_every`` steps are done; ``loss`` is their mean."""

    def on_eval(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """Train and dev have been evaluated."""

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """The run directory ``path`` has a new checkpoint."""

    def on_end(self, trainer: Trainer) -> None:
        """Training has ended, or has been stopped."""
