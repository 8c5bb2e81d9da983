"""The native engine: batches, gradients and updates in C++, many steps in one call.

The loop is csrc/engine/training_loop.cpp, bound by csrc/bindings/training_loop.cpp; its kernels are
those of the fused operators.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pymlp import _engine, reference
from pymlp.config import TrainConfig
from pymlp.data import Examples
from pymlp.flat import layout
from pymlp.model import MLP
from pymlp.steps import Steps, TrainedParameters

_LOOPS = {torch.float32: _engine.TrainingLoopFloat32, torch.float64: _engine.TrainingLoopFloat64}
_SGD_WEIGHT_DECAY = 0.0
_ADAMW_WEIGHT_DECAY = 0.01  # torch.optim's defaults


class NativeEngine:
    """Trains in the model's own parameter memory, without Python between the steps.

    Uses threads of its own, which live as long as a call of `run`; the results do not depend on
    their number. While steps run, the GIL is released and signals are
    answered: an exception from a handler, such as KeyboardInterrupt, leaves the state as it was
    after `Steps.done` steps.

    Args:
        model: as `obstacle` allows it.
        examples: on the CPU.
        config: of the run.

    Attributes:
        threads: how many a `run` uses; None, as at first, is ``torch.get_num_threads()``.
        profiling: whether `run` measures its phases; False at first.

    Raises:
        ValueError: the model cannot be trained by this engine, or has nothing to train.
    """

    name = "native"

    def __init__(self, model: MLP, examples: Examples, config: TrainConfig) -> None:
        obstacle = self.obstacle(model)
        if obstacle is not None:
            raise ValueError(
                f"Trainer: engine='native' does not apply: {obstacle}; "
                "use engine='autograd' or 'reference'"
            )
        self.model: MLP | reference.MLP = model
        self.threads: int | None = None
        self._mlp = model
        self._names = layout(model.config)
        self._trained = TrainedParameters(model)
        self._is_trained = [p.requires_grad for p in model.parameters()]
        self._state_names = _state_names(config)
        self._state = [
            [torch.zeros_like(p, requires_grad=False) for p in model.parameters()]
            for _ in self._state_names
        ]
        self._updates = 0
        self._dtype = model.embedding.weight.dtype
        self._loop = _make_loop(model, examples, config)

    @staticmethod
    def obstacle(model: MLP) -> str | None:
        """Why this engine cannot train ``model``; None if it can."""
        parameters = dict(model.named_parameters())
        if type(model) is not MLP:
            return f"the model is a {type(model).__name__}, not a plain MLP"
        names = layout(model.config)
        if tuple(parameters) != names:
            return f"the parameters are {', '.join(parameters)}, not {', '.join(names)}"
        for name, parameter in parameters.items():
            if not parameter.is_cpu:
                return f"{name} is on {parameter.device}, not on the CPU"
            if parameter.dtype not in _LOOPS or parameter.dtype != model.embedding.weight.dtype:
                return f"{name} is {parameter.dtype}, not float32 or float64 as all others"
            if not parameter.is_contiguous():
                return f"{name} is not contiguous"
            if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
                return f"{name} has hooks, which only PyTorch autograd calls"
        if _overlap(list(parameters.values())):
            return "parameters share memory"
        return None

    @property
    def profiling(self) -> bool:
        return bool(self._loop.profiling)

    @profiling.setter
    def profiling(self, value: bool) -> None:
        self._loop.profiling = value

    @property
    def profile(self) -> dict[str, float]:
        """Seconds spent in each phase of a step since profiling began."""
        return {phase: seconds for phase, (seconds, _) in self._loop.profile.items()}

    def run(self, steps: Steps) -> None:
        self._trained.check()
        self._check_memory()
        done = np.zeros(1, dtype=np.int64)
        try:
            self._loop.run(
                parameters=_arrays(list(self._mlp.parameters())),
                trained=self._is_trained,
                first=_arrays(self._state[0]) if self._state else [],
                second=_arrays(self._state[1]) if len(self._state) > 1 else [],
                indices=steps.indices.contiguous().numpy(),
                rates=steps.rates.numpy(),
                losses=steps.losses.numpy(),
                grad_norms=None if steps.grad_norms is None else steps.grad_norms.numpy(),
                done=done,
                done_before=self._updates,
                first_step=steps.first,
                threads=self.threads or torch.get_num_threads(),
                stopping=lambda: steps.stopping,
            )
        finally:
            steps.done = int(done[0])
            self._updates += steps.done

    def state_dict(self) -> dict[str, Tensor]:
        if self._updates == 0:
            return {}
        tensors = {
            f"{name}.{key}": value
            for key, values in zip(self._state_names, self._state, strict=True)
            for name, value in zip(self._names, values, strict=True)
            if name in self._trained.names
        }
        if "exp_avg" in self._state_names:
            for name in self._trained.names:
                tensors[f"{name}.step"] = torch.tensor(float(self._updates))
        return tensors

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for path, value in state.items():
            name, _, key = path.rpartition(".")
            if key == "step":
                self._updates = int(value)
            else:
                self._state[self._state_names.index(key)][self._names.index(name)].copy_(value)
                self._updates = max(self._updates, 1)

    def _check_memory(self) -> None:
        """The parameters may have got new memory, type or device since the last run."""
        obstacle = self.obstacle(self._mlp)
        if obstacle is None and self._mlp.embedding.weight.dtype != self._dtype:
            obstacle = f"the parameters were {self._dtype}"
        if obstacle is not None:
            raise RuntimeError(
                f"Trainer: the model was changed after the Trainer was made: {obstacle}; "
                "make a new Trainer"
            )


def _make_loop(model: MLP, examples: Examples, config: TrainConfig) -> Any:
    sizes = model.config
    adamw = config.optimizer == "adamw"
    default = _ADAMW_WEIGHT_DECAY if adamw else _SGD_WEIGHT_DECAY
    return _LOOPS[model.embedding.weight.dtype](
        vocab_size=sizes.vocab_size,
        block_size=sizes.block_size,
        n_embd=sizes.n_embd,
        n_hidden=sizes.n_hidden,
        adamw=adamw,
        momentum=config.momentum if config.optimizer == "momentum" else 0.0,
        weight_decay=default if config.weight_decay is None else config.weight_decay,
        betas=config.betas,
        eps=config.eps,
        max_grad_norm=config.max_grad_norm or 0.0,
        data=examples.native(),
        batch_size=config.batch_size,
        direct=sizes.direct,
        decay_biases=config.decay_biases,
        label_smoothing=config.label_smoothing,
        z_loss=config.z_loss,
        dropout=config.dropout,
        dropout_seed=config.seed,
    )


def _state_names(config: TrainConfig) -> tuple[str, ...]:
    """What torch.optim calls the tensors that the optimizer keeps for each parameter."""
    if config.optimizer == "adamw":
        return ("exp_avg", "exp_avg_sq")
    keeps_momentum = config.optimizer == "momentum" and config.momentum != 0
    return ("momentum_buffer",) if keeps_momentum else ()


def _arrays(tensors: list[nn.Parameter] | list[Tensor]) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]


def _overlap(tensors: list[nn.Parameter]) -> bool:
    """Whether two contiguous tensors have memory in common."""
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors if t.nbytes)
    return any(end > start for (_, end), (start, _) in itertools.pairwise(spans))
