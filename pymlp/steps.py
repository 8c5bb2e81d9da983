"""Runs of training steps, and the interface `Engine` of what carries them out.

An engine is handed the indices of the examples and the learning rates of a run of steps, and
answers with their losses. It knows nothing of schedules, evaluation, files or the screen: that is
the `Trainer`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from pymlp import reference
from pymlp.model import MLP

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class Steps:
    """A run of K training steps: what an engine is asked for, and its answer.

    An interruption such as KeyboardInterrupt may come between any two lines of Python. So a step
    counts from one moment on, when its number is written to ``counter``: whoever needs to know how
    far the training is derives it from there, and holds no count of its own.

    Attributes:
        indices: (K, B) int64, the examples of each step.
        rates: (K,) float64, learning rates.
        losses: (K,) float64, filled in: the loss of each step before its update.
        grad_norms: (K,) float64, filled in: the norm of the whole gradient before clipping; None if
            nobody wants to know.
        first: number of the first step, counted from 0 at the beginning of the training.
        stopping: set, from any thread, to make the engine return soon.
        counter: (1,) int64, the steps that are complete; fewer than K if the engine was stopped or
            raised an exception.
        unsettled: the engine's work that is left after an interruption; see `settle`.
    """

    indices: Tensor
    rates: Tensor
    losses: Tensor
    grad_norms: Tensor | None = None
    first: int = 0
    stopping: bool = False
    counter: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    unsettled: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self.rates)

    @property
    def done(self) -> int:
        """The steps that are complete."""
        return int(self.counter[0])

    def settle(self) -> None:
        """Leave model, optimizer and results as the complete steps left them.

        An engine does so before it returns or raises. After an interruption of that the next one
        who needs the state does it: it can be done again from the beginning.
        """
        if self.unsettled is not None:
            self.unsettled()
            self.unsettled = None


class Engine(Protocol):
    """Training steps on a model's own parameters.

    Attributes:
        name: what ``TrainConfig.engine`` calls it.
    """

    name: str

    @property
    def model(self) -> MLP | reference.MLP:
        """The module to evaluate with; it shares the trained parameters."""

    def run(self, steps: Steps) -> None:
        """Carry out the steps and fill in their results."""

    def state_dict(self) -> dict[str, Tensor]:
        """The optimizer's tensors under ``<parameter>.<name>``, as torch.optim names them."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what ``state_dict`` of this or another engine returned."""


class TrainedParameters:
    """The parameters of a model that have ``requires_grad`` when this is made.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, model: MLP | reference.MLP) -> None:
        self._model = model
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise ValueError("Trainer: the model has no parameter with requires_grad=True")
        self.names = [name for name, _ in named]
        self.tensors = [parameter for _, parameter in named]

    def before_steps(self) -> None:
        """Tell autograd that they change: engines write where it does not see it.

        A loss of before can then no longer be differentiated, as with any update in place.

        Raises:
            RuntimeError: the model has other parameters by now, or other frozen ones; or it is in
                `torch.inference_mode`.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "Trainer: nothing can be trained in torch.inference_mode(): leave it"
            )
        self._check()
        torch.autograd.graph.increment_version(self.tensors)

    def _check(self) -> None:
        current = dict(self._model.named_parameters())
        for name, parameter in zip(self.names, self.tensors, strict=True):
            if current.get(name) is not parameter:
                raise RuntimeError(
                    f"Trainer: the parameter {name} was replaced after the Trainer was made; "
                    "make a new Trainer"
                )
        for name, parameter in current.items():
            if parameter.requires_grad != (name in self.names):
                raise RuntimeError(
                    f"Trainer: requires_grad of {name} was changed after the Trainer was made; "
                    "make a new Trainer"
                )
