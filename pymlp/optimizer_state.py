"""The state that an optimizer keeps of each parameter, as torch.optim names it, for engines that
update by rules of their own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pymlp.config import TrainConfig
from pymlp.layers import layout
from pymlp.model import MLP
from pymlp.steps import Steps, TrainedParameters

_SGD_WEIGHT_DECAY = 0.0
_ADAMW_WEIGHT_DECAY = 0.01  # torch.optim's defaults

_EXACT_STEPS = 2**24


class OptimizerState:
    """The optimizer's tensors of all parameters, zero at first.

    Args:
        model: whose parameters are updated.
        trained: those that are not frozen.
        config: of the run.

    Attributes:
        tensors: a list of them for each thing that is kept: none, momentum buffers, or exp_avg and
            exp_avg_sq.
    """

    def __init__(self, model: MLP, trained: TrainedParameters, config: TrainConfig) -> None:
        self._trained_names = trained.names
        self._parameters = layout(model.config)
        self._names = _state_names(config)
        self.tensors = [
            [torch.zeros_like(p, requires_grad=False) for p in model.parameters()]
            for _ in self._names
        ]
        self._updates: tuple[int, Steps | None] = 0, None

    @property
    def updates(self) -> int:
        """How many were done, the complete ones of the last `follow` among them."""
        before, steps = self._updates
        return before if steps is None else before + steps.done

    def follow(self, steps: Steps) -> None:
        """Count the steps, which are about to be carried out, as they are completed."""
        self._updates = self.updates, steps

    def of(self, index: int) -> list[Tensor]:
        """The first or second thing that is kept; an empty list if it is not."""
        return self.tensors[index] if index < len(self.tensors) else []

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of what is trained, under ``<parameter>.<name>``."""
        if self.updates == 0:
            return {}
        tensors = {
            f"{name}.{key}": value
            for key, values in zip(self._names, self.tensors, strict=True)
            for name, value in zip(self._parameters, values, strict=True)
            if name in self._trained_names
        }
        if "exp_avg" in self._names:
            for name in self._trained_names:
                tensors[f"{name}.step"] = torch.tensor(float(self.updates), device="cpu")
        return tensors

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what ``state_dict`` of any engine returned."""
        updates = 0
        for path, value in state.items():
            name, _, key = path.rpartition(".")
            if key == "step":
                updates = int(value)
            else:
                self.tensors[self._names.index(key)][self._parameters.index(name)].copy_(value)
                updates = max(updates, 1)
        self._updates = updates, None


def state_kinds(
    config: TrainConfig, shape: tuple[int, ...], dtype: torch.dtype
) -> list[tuple[str, tuple[int, ...], tuple[torch.dtype, ...]]]:
    """Name, shape and possible dtypes of all that is kept of one parameter after a step."""
    kinds: list[tuple[str, tuple[int, ...], tuple[torch.dtype, ...]]]
    kinds = [(name, shape, (dtype,)) for name in _state_names(config)]
    if "exp_avg" in _state_names(config):
        kinds.append(("step", (), (torch.float32, torch.float64)))  # torch's default dtype
    return kinds


def check_values(state: Mapping[str, Tensor], steps: int) -> None:
    """Check the numbers in tensors of the right names, shapes and dtypes after so many steps.

    Raises:
        ValueError: they cannot be.
    """
    for path, value in state.items():
        key = path.rpartition(".")[2]
        if value.isnan().any():
            raise ValueError(f"optimizer.{path} must not hold nan")
        if key == "exp_avg_sq" and (value < 0).any():
            raise ValueError(f"optimizer.{path} must not be negative")
        # Beyond, a step more is not seen in float32.
        if key == "step" and value != steps and steps < _EXACT_STEPS:
            raise ValueError(f"optimizer.{path} must be {steps}, the steps done, got {value:g}")


def weight_decay(config: TrainConfig) -> float:
    """The run's, or torch.optim's default."""
    if config.weight_decay is not None:
        return config.weight_decay
    return _ADAMW_WEIGHT_DECAY if config.optimizer == "adamw" else _SGD_WEIGHT_DECAY


def sparse_embedding(config: TrainConfig) -> bool:
    """Whether it is asked for and makes a difference: plain SGD moves no other rows anyway."""
    is_plain = not _state_names(config) and weight_decay(config) == 0
    return config.sparse_embedding and not is_plain


def _state_names(config: TrainConfig) -> tuple[str, ...]:
    """The names in torch.optim of the tensors that the optimizer keeps for each parameter."""
    if config.optimizer == "adamw":
        return ("exp_avg", "exp_avg_sq")
    keeps_momentum = config.optimizer == "momentum" and config.momentum != 0
    return ("momentum_buffer",) if keeps_momentum else ()
