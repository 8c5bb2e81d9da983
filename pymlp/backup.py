"""Undoing a half-made update of torch.optim: `UpdateBackup`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pymlp.steps import Steps


class UpdateBackup:
    """The parameters of an optimizer and its state, kept from before an update until it is counted.

    An update of torch.optim is many lines of Python, and an interruption may come between any two
    of them. What they changed is then put back, and the step is done again.

    Args:
        optimizer: of the parameters.
        model: its buffers are kept, too, for a forward may change them.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        self._optimizer = optimizer
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._copies = [p.detach().clone() for p in self._parameters]
        self._buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self._states: list[dict[str, Any]] = [{} for _ in self._parameters]
        self._next: tuple[Steps, int] | None = None  # the update that the copies are from before

    @torch.no_grad()
    def take(self, steps: Steps) -> None:
        """Keep the state of now, which is after ``steps.done`` of the steps."""
        self._next = None
        for parameter, copy, kept in zip(self._parameters, self._copies, self._states, strict=True):
            copy.copy_(parameter)
            _copy_state(self._optimizer.state.get(parameter, {}), kept)
        for buffer, copy in self._buffers:
            copy.copy_(buffer)
        self._next = steps, steps.done

    @torch.no_grad()
    def restore(self) -> None:
        """Put the state back, unless the update is counted by now.

        It may be done again, after an interruption.
        """
        if self._next is None or self._next[0].done > self._next[1]:
            return
        for parameter, copy, kept in zip(self._parameters, self._copies, self._states, strict=True):
            parameter.copy_(copy)
            _copy_state(kept, self._optimizer.state[parameter])
        for buffer, copy in self._buffers:
            buffer.copy_(copy)
        self._next = None  # whatever is changed from now on is not the update's


def _copy_state(source: dict[str, Any], target: dict[str, Any]) -> None:
    """Make the entries of ``target`` those of ``source``, in the tensors that are there."""
    for key in target.keys() - source.keys():
        del target[key]
    for key, value in source.items():
        present = target.get(key)
        if isinstance(value, Tensor) and isinstance(present, Tensor):
            present.copy_(value)
        else:
            target[key] = value.clone() if isinstance(value, Tensor) else value
