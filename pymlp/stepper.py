"""Runs of training steps: which examples, at which rate, by which engine, with which losses."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from pymlp import batches, device_engine
from pymlp.batches import Batches
from pymlp.config import TrainConfig
from pymlp.data import Examples
from pymlp.device_engine import DeviceEngine
from pymlp.engines import choose_engine, make_engine
from pymlp.model import MLP
from pymlp.steps import Steps

# How long steps run without anybody being asked whether to go on.
_UNINTERRUPTED_SECONDS = 0.05


class DivergedError(ArithmeticError):
    """Training stopped because a loss or a parameter is not finite any more.

    Attributes:
        step: the updates done before the loss, or the parameter, was found to be so.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Stepper:
    """Carries out steps and remembers the loss of each.

    Args:
        model: trained in place.
        examples: to draw from.
        config: of the run.

    Attributes:
        engine: what carries them out.
        engine_reason: why it is this one.
        losses: (config.steps,) float64, filled up to `step`: batch losses before each update.
        grad_norms: likewise the norms of the gradients; None unless ``config.log_grad_norm``.
        seconds: time spent in steps by this object.
    """

    def __init__(self, model: MLP, examples: Examples, config: TrainConfig) -> None:
        device = next(model.parameters()).device
        name, self.engine_reason = choose_engine(model, config)
        self.engine = make_engine(name, model, examples.to(device), config)
        at_once = batches.BLOCK_INDICES
        if isinstance(self.engine, DeviceEngine):
            self.engine_reason += f", {self.engine.way}"
            at_once = device_engine.BLOCK_INDICES
        # On the CPU, whatever torch's default device is.
        self.losses = torch.zeros(config.steps, dtype=torch.float64, device="cpu")
        self.grad_norms = torch.full_like(self.losses, math.nan) if config.log_grad_norm else None
        self.seconds = 0.0
        # The updates done before the last steps that were begun, and those steps: one assignment
        # replaces both.
        self._begun: tuple[int, Steps | None] = 0, None
        self._stop_asked = False
        self._steps_run = 0
        self._at_once = 1
        self._config = config
        self._batches = Batches(len(examples), config.batch_size, config.seed, at_once)

    @property
    def step(self) -> int:
        """Updates done."""
        before, steps = self._begun
        return before if steps is None else before + steps.done

    def run(self, until: int) -> None:
        """A few steps, at most up to ``until``, and not for long.

        There is at least one, unless `stop` is called meanwhile.
        """
        steps = self.begin(until)
        start = time.perf_counter()
        try:
            self.engine.run(steps)
        finally:
            self.end(steps, time.perf_counter() - start)

    def stop(self) -> None:
        """Make a `run` that is under way return soon."""
        self._stop_asked = True
        steps = self._begun[1]
        if steps is not None:
            steps.stopping = True

    def begin(self, until: int) -> Steps:
        """The steps that `run` carries out, for whoever carries them out otherwise."""
        self._stop_asked = False
        self.settle()
        step = self.step
        indices = self._batches.at(step, min(until - step, self._at_once))
        part = slice(step, step + len(indices))
        rates = [self._config.learning_rate(number) for number in range(part.start, part.stop)]
        steps = Steps(
            indices=indices,
            rates=torch.tensor(rates, dtype=torch.float64, device="cpu"),
            losses=self.losses[part],
            first=step,
            grad_norms=None if self.grad_norms is None else self.grad_norms[part],
        )
        self._begun = step, steps
        if self._stop_asked:  # while the batches were drawn
            steps.stopping = True
        return steps

    def end(self, steps: Steps, seconds: float) -> None:
        """Settle what `begin` returned, and learn from how long it took."""
        steps.settle()
        self.seconds += seconds
        self._steps_run += steps.done
        pace = max(1, int(_UNINTERRUPTED_SECONDS * steps.done / seconds))
        # Few steps that were all there were to do say little: most of their time may be the call's.
        cut_short = steps.done == len(steps) < self._at_once
        self._at_once = max(pace, self._at_once) if cut_short else pace

    def settle(self) -> None:
        """Finish what an interruption has left undone of the last steps."""
        steps = self._begun[1]
        if steps is not None:
            steps.settle()

    @property
    def us_per_step(self) -> float:
        """Microseconds per step so far, nan before the first."""
        return 1e6 * self.seconds / self._steps_run if self._steps_run else math.nan

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors of the optimizer (``optimizer.*``) and of the batch stream (``batches.*``)."""
        self.settle()
        batches = self._batches.state_dict(self.step)
        parts = {"optimizer": self.engine.state_dict(), "batches": batches}
        return {f"{part}.{name}": t for part, state in parts.items() for name, t in state.items()}

    def load_state_dict(
        self, losses: Tensor, optimizer: dict[str, Tensor], batches: dict[str, Tensor]
    ) -> None:
        """Continue after the steps whose ``losses`` (S,) are given."""
        step = len(losses)
        self._begun = step, None
        self.losses[:step] = losses
        self.engine.load_state_dict(optimizer)
        self._batches.load_state_dict(batches, step)

    def check_losses(self, begin: int) -> None:
        """Check the losses of the steps from number ``begin`` on.

        Raises:
            DivergedError: one is not finite.
        """
        losses = self.losses[begin : self.step]
        finite = losses.isfinite()
        if not finite.all():
            index = int((~finite).nonzero()[0])
            step = begin + index
            rate = self._config.learning_rate(max(0, step - 1))
            raise DivergedError(
                f"training diverged: the loss is {losses[index].item()} at step {step} "
                f"(learning rate {rate:g}: try a lower one)",
                step,
            )
