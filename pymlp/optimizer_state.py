"""What an optimizer keeps of each parameter, as torch.optim names it, for engines that update by
rules of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from pymlp.config import TrainConfig
from pymlp.layers import layout
from pymlp.model import MLP
from pymlp.steps import TrainedParameters

_SGD_WEIGHT_DECAY = 0.0
_ADAMW_WEIGHT_DECAY = 0.01  # torch.optim's defaults


class OptimizerState:
    """The optimizer's tensors of all parameters, zero at first.

    Args:
        model: whose parameters are updated.
        trained: those that are not frozen.
        config: of the run.

    Attributes:
        tensors: a list of them for each thing that is kept: none, momentum buffers, or exp_avg and
            exp_avg_sq.
        updates: how many were done.
    """

    def __init__(self, model: MLP, trained: TrainedParameters, config: TrainConfig) -> None:
        self._trained_names = trained.names
        self._parameters = layout(model.config)
        self._names = _state_names(config)
        self.tensors = [
            [torch.zeros_like(p, requires_grad=False) for p in model.parameters()]
            for _ in self._names
        ]
        self.updates = 0

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
        for path, value in state.items():
            name, _, key = path.rpartition(".")
            if key == "step":
                self.updates = int(value)
            else:
                self.tensors[self._names.index(key)][self._parameters.index(name)].copy_(value)
                self.updates = max(self.updates, 1)


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
    """What torch.optim calls the tensors that the optimizer keeps for each parameter."""
    if config.optimizer == "adamw":
        return ("exp_avg", "exp_avg_sq")
    keeps_momentum = config.optimizer == "momentum" and config.momentum != 0
    return ("momentum_buffer",) if keeps_momentum else ()
