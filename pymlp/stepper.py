"""Runs of training steps: which examples, at which rate, by which engine, with which losses."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from pymlp.batches import Batches
from pymlp.config import TrainConfig
from pymlp.data import Examples
from pymlp.engines import make_engine
from pymlp.model import MLP

# How long steps run without anybody being asked whether to go on.
_UNINTERRUPTED_SECONDS = 0.05


class DivergedError(ArithmeticError):
    """Training stopped because a loss or a parameter is not finite any more."""


class Stepper:
    """Carries out steps and remembers the loss of each.

    Args:
        model: trained in place.
        examples: to draw from.
        config: of the run.

    Attributes:
        step: updates done.
        losses: (config.steps,) float64, filled up to ``step``: batch losses before each update.
        seconds: time spent in steps by this object.
    """

    def __init__(self, model: MLP, examples: Examples, config: TrainConfig) -> None:
        device = next(model.parameters()).device
        examples = Examples(examples.tokens.to(device), examples.targets.to(device))
        self.engine = make_engine(model, examples, config)
        self.step = 0
        self.losses = torch.zeros(config.steps, dtype=torch.float64)
        self.seconds = 0.0
        self._steps_run = 0
        self._at_once = 1
        self._config = config
        self._batches = Batches(len(examples), config.batch_size, config.seed)

    def run(self, until: int) -> Tensor:
        """At least one step, at most up to ``until``, and not for long; their losses (K,).

        Raises:
            DivergedError: a loss is not finite.
        """
        start = time.perf_counter()
        indices = self._batches.take(min(until - self.step, self._at_once))
        end = self.step + len(indices)
        rates = [self._config.learning_rate(step) for step in range(self.step, end)]
        losses = self.engine.run(indices, rates)
        seconds = time.perf_counter() - start
        self.seconds += seconds
        self._steps_run += len(indices)
        self._at_once = max(1, int(_UNINTERRUPTED_SECONDS * len(indices) / seconds))
        self._check(losses)
        self.losses[self.step : end] = losses
        self.step = end
        return losses

    @property
    def us_per_step(self) -> float:
        """Microseconds per step so far, nan before the first."""
        return 1e6 * self.seconds / self._steps_run if self._steps_run else math.nan

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors of the optimizer (``optimizer.*``) and of the batch stream (``batches.*``)."""
        parts = {"optimizer": self.engine.state_dict(), "batches": self._batches.state_dict()}
        return {f"{part}.{name}": t for part, state in parts.items() for name, t in state.items()}

    def load_state_dict(
        self, losses: Tensor, optimizer: dict[str, Tensor], batches: dict[str, Tensor]
    ) -> None:
        """Continue after the steps whose ``losses`` (S,) are given."""
        self.step = len(losses)
        self.losses[: self.step] = losses
        self.engine.load_state_dict(optimizer)
        self._batches.load_state_dict(batches)

    def _check(self, losses: Tensor) -> None:
        finite = losses.isfinite()
        if not finite.all():
            first = int((~finite).nonzero()[0])
            step = self.step + first
            rate = self._config.learning_rate(max(0, step - 1))
            raise DivergedError(
                f"training diverged: the loss is {losses[first].item()} at step {step} "
                f"(learning rate {rate:g}: try a lower one)"
            )
