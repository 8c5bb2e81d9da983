"""The native engine: batches, gradients and updates in C++, many steps in one call.

The loop is csrc/engine/training_loop.cpp, bound by csrc/bindings/training_loop.cpp; its kernels are
those of the fused operators.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from pymlp import _engine, reference
from pymlp.candidates import native_candidates
from pymlp.config import TrainConfig
from pymlp.data import Examples
from pymlp.model import MLP
from pymlp.optimizer_state import OptimizerState, sparse_embedding, weight_decay
from pymlp.plain import gradient_hooks_reason, unsupported_reason
from pymlp.steps import Steps, TrainedParameters

_LOOPS = {torch.float32: _engine.TrainingLoopFloat32, torch.float64: _engine.TrainingLoopFloat64}


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
            raise no_engine(obstacle)
        self.model: MLP | reference.MLP = model
        self.threads: int | None = None
        self._mlp = model
        self._trained = TrainedParameters(model)
        self._is_trained = [p.requires_grad for p in model.parameters()]
        self._state = OptimizerState(model, self._trained, config)
        self._dtype = model.embedding.weight.dtype
        self._loop = _make_loop(model, examples, config)

    @staticmethod
    def obstacle(model: MLP) -> str | None:
        """Why this engine cannot train ``model``; None if it can."""
        return native_obstacle(model, "cpu")

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
        self._trained.before_steps()
        self._check_memory()
        self._state.follow(steps)
        self._loop.run(
            parameters=_arrays(list(self._mlp.parameters())),
            trained=self._is_trained,
            first=_arrays(self._state.of(0)),
            second=_arrays(self._state.of(1)),
            indices=steps.indices.contiguous().numpy(),
            rates=steps.rates.numpy(),
            losses=steps.losses.numpy(),
            grad_norms=None if steps.grad_norms is None else steps.grad_norms.numpy(),
            done=steps.counter,
            done_before=self._state.updates,
            first_step=steps.first,
            threads=self.threads or torch.get_num_threads(),
            stopping=lambda: steps.stopping,
        )

    def state_dict(self) -> dict[str, Tensor]:
        return self._state.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._state.load_state_dict(state)

    def _check_memory(self) -> None:
        check_memory(self.obstacle(self._mlp), self._mlp, self._dtype)


def native_obstacle(model: MLP, device_type: str) -> str | None:
    """Why native code on such a device cannot train ``model``; None if it can."""
    if type(model) is reference.MLP:
        return "the model is a pymlp.reference.MLP, which stays plain PyTorch"
    reason = unsupported_reason(model) or gradient_hooks_reason(model)
    if reason is not None:
        return reason
    parameters = dict(model.named_parameters())
    first = model.embedding.weight
    for name, parameter in parameters.items():
        if parameter.device.type != device_type:
            there = "the CPU" if device_type == "cpu" else device_type
            return f"{name} is on {parameter.device}, not on {there}"
        if parameter.device != first.device:
            return f"{name} is on {parameter.device}, others on {first.device}"
        if parameter.dtype not in _LOOPS or parameter.dtype != first.dtype:
            return f"{name} is {parameter.dtype}, not float32 or float64 as all others"
        if not parameter.is_contiguous():
            return f"{name} is not contiguous"
    if _overlap(list(parameters.values())):
        return "parameters share memory"
    return None


def no_engine(obstacle: str) -> ValueError:
    """The error that the constructor of a native engine raises."""
    return ValueError(
        f"Trainer: engine='native' does not apply: {obstacle}; use engine='autograd' or 'reference'"
    )


def check_memory(obstacle: str | None, model: MLP, dtype: torch.dtype) -> None:
    """The parameters may have got new memory, type or device since the last run."""
    if obstacle is None and model.embedding.weight.dtype != dtype:
        obstacle = f"the parameters were {dtype}"
    if obstacle is not None:
        raise RuntimeError(
            f"Trainer: the model was changed after the Trainer was made: {obstacle}; "
            "make a new Trainer"
        )


def _make_loop(model: MLP, examples: Examples, config: TrainConfig) -> Any:
    sizes = model.config
    return _LOOPS[model.embedding.weight.dtype](
        vocab_size=sizes.vocab_size,
        block_size=sizes.block_size,
        n_embd=sizes.n_embd,
        n_hidden=sizes.n_hidden,
        adamw=config.optimizer == "adamw",
        momentum=config.momentum if config.optimizer == "momentum" else 0.0,
        weight_decay=weight_decay(config),
        betas=config.betas,
        eps=config.eps,
        max_grad_norm=config.max_grad_norm or 0.0,
        data=examples.native(),
        batch_size=config.batch_size,
        direct=sizes.direct,
        decay_biases=config.decay_biases,
        sparse_embedding=sparse_embedding(config),
        label_smoothing=config.label_smoothing,
        z_loss=config.z_loss,
        dropout=config.dropout,
        dropout_seed=config.seed,
        candidates=native_candidates(examples, sizes.vocab_size, config),
    )


def _arrays(tensors: list[nn.Parameter] | list[Tensor]) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]


def _overlap(tensors: list[nn.Parameter]) -> bool:
    """Whether two contiguous tensors have memory in common."""
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors if t.nbytes)
    return any(end > start for (_, end), (start, _) in itertools.pairwise(spans))
