"""The native engine on CUDA devices: many steps for one word from Python.

A model goes one of two ways, which its sizes decide. If it fits into the shared memory of a block,
the training kernel (csrc/kernels/cuda/training-inl.h) carries out many steps in one launch, of one
model or of many side by side. Any other goes step by step, as a CUDA graph
(`pymlp.device_graph`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import fields
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pymlp import reference
from pymlp._library import CUDA_ARCHITECTURES, ops, too_old
from pymlp.config import TrainConfig
from pymlp.data import Examples
from pymlp.device_graph import GraphSteps
from pymlp.device_results import DeviceResults, wait
from pymlp.layers import layout
from pymlp.model import MLP
from pymlp.native import check_memory, native_obstacle, no_engine
from pymlp.optimizer_state import OptimizerState, sparse_embedding, weight_decay
from pymlp.steps import Steps, TrainedParameters

# Types of devices that this is the native engine of.
DEVICES = ("cuda",) if CUDA_ARCHITECTURES else ()

# The options of a model that all kernels know, and the options that a graph of kernels knows.
_SIZES = ("vocab_size", "block_size", "n_embd", "n_hidden")
_GRAPH_OPTIONS = (*_SIZES, "direct")

# Indices drawn at once: a launch is as long as the steps there are indices for.
BLOCK_INDICES = 2**18


class DeviceEngine:
    """Trains on the device, in the model's own parameter memory.

    Args:
        model: as `obstacle` allows it.
        examples: on the model's device.
        config: of the run.

    Attributes:
        way: how the steps are carried out, and why so.
        persistent: whether it is by the training kernel.

    Raises:
        ValueError: the model cannot be trained by this engine, or has nothing to train.
    """

    name = "native"

    def __init__(self, model: MLP, examples: Examples, config: TrainConfig) -> None:
        obstacle = self.obstacle(model, config)
        if obstacle is not None:
            raise no_engine(obstacle)
        self._config = config
        self.model: MLP | reference.MLP = model
        self.tokens, self.targets = _table(examples)
        self._mlp = model
        self._trained = TrainedParameters(model)
        self._like = model.embedding.weight.detach()
        self.state = OptimizerState(model, self._trained, config)
        self.settings = _settings(model, config)
        self.persistent, self.way = _way(model, config)
        at_once = max(8, BLOCK_INDICES // config.batch_size)
        self._graph = None if self.persistent else GraphSteps(self, model, config, at_once)

    @staticmethod
    def obstacle(model: MLP, config: TrainConfig) -> str | None:
        """Why this engine cannot train ``model`` as ``config`` says; None if it can."""
        return (
            too_old(next(model.parameters()).device)
            or native_obstacle(model, DEVICES[0] if DEVICES else "cuda")
            or unknown_option(model, _GRAPH_OPTIONS)
            or _unknown_rule(config)
        )

    def run(self, steps: Steps) -> None:
        if self._graph is None:
            run_together([(self, steps)])
        else:
            self.before_steps()
            self.state.follow(steps)
            with torch.cuda.device_of(self.targets):
                self._graph.run(steps)

    def state_dict(self) -> dict[str, Tensor]:
        return self.state.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.state.load_state_dict(state)

    def before_steps(self) -> None:
        """Raise RuntimeError if the model is not what it was when this was made."""
        self._trained.before_steps()
        check_memory(self.obstacle(self._mlp, self._config), self._mlp, self._like.dtype)

    def arrays(self) -> list[list[Tensor]]:
        """The parameters, and two lists of their state with a tensor for each."""
        nothing = [self._like.new_empty(0)] * len(self.settings_of_parameters)
        parameters = [parameter.detach() for parameter in self._mlp.parameters()]
        return [parameters, self.state.of(0) or nothing, self.state.of(1) or nothing]

    @property
    def settings_of_parameters(self) -> list[float]:
        """1 for each parameter that is trained, 0 for each that is frozen."""
        return self.settings[-len(layout(self._mlp.config)) :]


def run_together(runs: Sequence[tuple[DeviceEngine, Steps]]) -> None:
    """Steps of many models, which train in the training kernel, by one launch.

    All of one dtype, on one device and the same examples. They are done when this returns.
    """
    for engine, _ in runs:
        engine.before_steps()
    launched = [_Launch(engine, steps) for engine, steps in runs if not steps.stopping]
    if not launched:
        return
    first = launched[0].engine
    with ExitStack() as ending:  # which sees to all of them, whatever interrupts one
        for launch in launched:
            ending.callback(launch.steps.settle)
        ops.train_models(
            *(_joined(launch.arrays[i] for launch in launched) for i in range(3)),
            first.tokens,
            first.targets,
            [launch.indices for launch in launched],
            [launch.rates for launch in launched],
            [launch.losses for launch in launched],
            [launch.norms for launch in launched],
            [launch.done for launch in launched],
            [number for launch in launched for number in launch.engine.settings],
        )
        wait(launch.results for launch in launched)


class _Launch:
    """A model's part of a launch."""

    def __init__(self, engine: DeviceEngine, steps: Steps) -> None:
        self.engine, self.steps = engine, steps
        self.arrays = engine.arrays()
        device = engine.targets.device
        self.indices = steps.indices.to(device, torch.int32)
        self.rates = steps.rates.to(device)
        self.losses = torch.empty(len(steps), dtype=torch.float64, device=device)
        self.norms = torch.empty_like(self.losses[: 0 if steps.grad_norms is None else None])
        self._before = engine.state.updates
        self.done = torch.tensor([self._before], device=device)
        self.results = DeviceResults(self.done, self.losses, self.norms)
        engine.state.follow(steps)
        steps.unsettled = self._collect

    def _collect(self) -> None:
        """Note the results, which have to be waited for if nobody has."""
        self.results.note(self.steps, 0, self._before)


def unknown_option(model: MLP | reference.MLP, known: Collection[str] = _SIZES) -> str | None:
    """An option of the model that kernels with those ``known`` do not know, if one is in use."""
    for field in fields(model.config):
        value = getattr(model.config, field.name)
        if field.name not in known and value != field.default:
            return f"the model has {field.name}={value!r}, which its kernels do not know"
    return None


def _unknown_rule(config: TrainConfig) -> str | None:
    """An option of the run that no kernel of the device knows, if one is in use."""
    if config.sampled_softmax is not None:
        return f"sampled_softmax={config.sampled_softmax} is not among what its kernels do"
    if sparse_embedding(config):
        return "sparse_embedding=True is not among what its kernels do"
    return None


def _unknown_term(config: TrainConfig) -> str | None:
    """An option of the run that the training kernel does not know, if one is in use."""
    for name in ("label_smoothing", "z_loss", "dropout"):
        if getattr(config, name) > 0:
            return f"{name}={getattr(config, name)}"
    spared = not config.decay_biases and weight_decay(config) != 0
    return "decay_biases=False" if spared else None


_tables: WeakKeyDictionary[Examples, tuple[Tensor, Tensor]] = WeakKeyDictionary()


def _table(examples: Examples) -> tuple[Tensor, Tensor]:
    """Tokens (N, T) and targets (N,) where the examples are: one table for all who ask for it."""
    if examples not in _tables:
        _tables[examples] = (examples.tokens.contiguous(), examples.targets.contiguous())
    return _tables[examples]


def _way(model: MLP, config: TrainConfig) -> tuple[bool, str]:
    """Whether the training kernel takes the model, and what to say about it."""
    c = model.config
    graph = "as a graph of the fused operators' kernels, since"
    unknown = "direct=True" if c.direct else _unknown_term(config)
    if unknown is not None:
        return False, f"{graph} {unknown} is not among what the training kernel does"
    least, most = ops.training_shared_bytes(
        model.embedding.weight.detach(),
        c.vocab_size,
        c.block_size,
        c.n_embd,
        c.n_hidden,
        config.batch_size,
    )
    need = "more than any block has" if least >= 2**40 else _kib(least)
    need += f" of the {_kib(most)} of shared memory that a block has"
    if least <= most:
        return True, f"in one kernel, since model and batch take {need}"
    return False, f"{graph} model and batch would take {need}"


def _kib(count: int) -> str:
    return f"{math.ceil(count / 1024)} KiB"


def _settings(model: MLP, config: TrainConfig) -> list[float]:
    """One row of numbers, as csrc/ops/training.h reads it."""
    return [
        float(config.optimizer == "adamw"),
        config.momentum if config.optimizer == "momentum" else 0.0,
        weight_decay(config),
        *config.betas,
        config.eps,
        config.max_grad_norm or 0.0,
        float(config.decay_biases or weight_decay(config) == 0),
        *(float(parameter.requires_grad) for parameter in model.parameters()),
    ]


def _joined(lists: Iterable[list[Tensor]]) -> list[Tensor]:
    return [tensor for tensors in lists for tensor in tensors]
