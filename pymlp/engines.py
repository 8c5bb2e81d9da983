"""The engines that carry out training steps: the choice, and the engines made of PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pymlp import device_engine, reference
from pymlp._library import KERNEL_DEVICES, too_old
from pymlp.backup import UpdateBackup
from pymlp.candidates import CandidateSampler, native_candidates
from pymlp.config import TrainConfig
from pymlp.data import Examples
from pymlp.device_engine import DeviceEngine
from pymlp.dropout import dropout_masks
from pymlp.model import MLP
from pymlp.native import NativeEngine
from pymlp.optimizer_state import sparse_embedding, weight_decay
from pymlp.reference import Candidates
from pymlp.sparse import sparse_step
from pymlp.steps import Engine, Steps, TrainedParameters

# Batches that are gathered at once: enough to spread the cost, few enough to stay in the cache.
_GATHERED_STEPS = 64

# Parameters of which a step of the sampled softmax uses the rows of the candidates alone.
_OUTPUT_LAYER = ("output.weight", "output.bias", "direct.weight")


class _TorchEngine:
    """Batches gathered for many steps at once, stepped with a torch.optim optimizer."""

    name: str

    def __init__(self, model: MLP | reference.MLP, examples: Examples, config: TrainConfig) -> None:
        self._model = model
        _check_sparse(model, config)
        self._trained = TrainedParameters(model)
        self._config = config
        self._max_norm = config.max_grad_norm
        # Terms that are off are not passed: a model with a loss of its own need not know them.
        terms = {"label_smoothing": config.label_smoothing, "z_loss": config.z_loss}
        self._terms: dict[str, Any] = {name: x for name, x in terms.items() if x > 0}
        self._check_rows()
        self._optimizer = self._make_optimizer(config)
        self._examples = examples
        drawn = native_candidates(examples, model.config.vocab_size, config)
        like = self._trained.tensors[0]
        self._sampler = None if drawn is None else CandidateSampler(drawn, like)
        self._backup = UpdateBackup(self._optimizer, self.model)
        self._norm: Tensor | None = None

    @property
    def model(self) -> MLP | reference.MLP:
        """The module to evaluate with."""
        return self._model

    def run(self, steps: Steps) -> None:
        self._trained.before_steps()
        self._wants_norm = steps.grad_norms is not None or self._max_norm is not None
        results: Results = {}
        steps.unsettled = partial(self._settle, steps, results)
        try:
            # Whatever mode the caller is in; an interruption of torch.optim may leave it switched,
            # and this puts it back.
            with torch.enable_grad():
                self._carry_out(steps, results)
        finally:
            steps.settle()
        self._optimizer.zero_grad()

    def _carry_out(self, steps: Steps, results: Results) -> None:
        for start in range(0, len(steps), _GATHERED_STEPS):
            for k, batch in self._gathered(steps, start):
                self._backup.take(steps)
                results[k] = self._step(*batch, steps.first + k), self._norm
                steps.counter[0] = k + 1
            _note(steps, results)

    def _settle(self, steps: Steps, results: Results) -> None:
        self._backup.restore()
        _note(steps, results)

    def state_dict(self) -> dict[str, Tensor]:
        state = self._optimizer.state
        return {
            f"{name}.{key}": value
            for name, parameter in zip(self._trained.names, self._trained.tensors, strict=True)
            for key, value in state.get(parameter, {}).items()
            if isinstance(value, Tensor)
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        groups = self._optimizer.param_groups
        order = {p: index for index, p in enumerate(p for group in groups for p in group["params"])}
        indices = {
            name: order[parameter]
            for name, parameter in zip(self._trained.names, self._trained.tensors, strict=True)
        }
        tensors: dict[int, dict[str, Tensor]] = {}
        for path, value in state.items():
            name, _, key = path.rpartition(".")
            tensors.setdefault(indices[name], {})[key] = value
        described = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": tensors, "param_groups": described})

    def _make_optimizer(self, config: TrainConfig) -> torch.optim.Optimizer:
        return _optimizer(
            dict(zip(self._trained.names, self._trained.tensors, strict=True)), config
        )

    def _gathered(self, steps: Steps, start: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """The batches from step ``start`` on, until somebody stops, and their numbers."""
        part = slice(start, start + _GATHERED_STEPS)
        tokens, targets = self._examples.take(steps.indices[part])
        rates = steps.rates[part].tolist()
        batches = zip(tokens.unbind(), targets.unbind(), strict=True)
        for k, (batch, rate) in enumerate(zip(batches, rates, strict=True), start):
            if steps.stopping:
                return
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            yield k, batch

    def _step(self, tokens: Tensor, targets: Tensor, step: int) -> Tensor | float:
        """Update number ``step``; the loss before it: a number if asking waits for no device."""
        loss, rows = self._loss(tokens, targets, step)
        for parameter in self._trained.tensors:  # as zero_grad(), without its bookkeeping
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        self._clip(self._trained.tensors)
        sparse_step(self._optimizer, rows)
        # detach() would keep the graph's memory until the block ends.
        return loss.item() if loss.is_cpu else loss.data

    def _loss(
        self, tokens: Tensor, targets: Tensor, step: int
    ) -> tuple[Tensor, dict[nn.Parameter, Tensor]]:
        """The loss that the step minimises; for some parameters, the only rows that it updates."""
        terms = dict(self._terms)
        if self._config.dropout > 0.0:
            like = self._trained.tensors[0]
            terms["dropout"] = dropout_masks(self.model.config, self._config, step, like)
        if self._sampler is not None:
            terms["candidates"] = self._sampler.draw(step, targets)
        rows = self._rows(tokens, terms.get("candidates"))
        return self.model.loss(tokens, targets, **terms), rows

    def _check_rows(self) -> None:
        """Raise ValueError if rows are to be left alone of a parameter that is not there."""
        options = {
            "embedding.weight": ("sparse_embedding", sparse_embedding(self._config)),
            "output.weight": ("sampled_softmax", self._config.sampled_softmax is not None),
        }
        there = {name for name, _ in self.model.named_parameters(remove_duplicate=False)}
        for name, (option, is_on) in options.items():
            if is_on and name not in there:
                raise ValueError(
                    f"Trainer: {option} updates rows of {name}, which this model has not: "
                    f"train it without {option}"
                )

    def _rows(self, tokens: Tensor, candidates: Candidates | None) -> dict[nn.Parameter, Tensor]:
        """The rows that a step updates, by parameter; of those that are not here, all.

        One that stands in several places (tied weights) has the rows of all of them.
        """
        rows = {}
        if sparse_embedding(self._config):
            rows["embedding.weight"] = tokens.flatten()
        if candidates is not None:
            rows |= dict.fromkeys(_OUTPUT_LAYER, candidates.words)
        if not rows:
            return {}
        places: dict[nn.Parameter, list[str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            places.setdefault(parameter, []).append(name)
        return {
            parameter: torch.cat([rows[name] for name in names])
            for parameter, names in places.items()
            if parameter.requires_grad and rows.keys() >= set(names)
        }

    def _clip(self, parameters: list[nn.Parameter]) -> None:
        """Note the norm of the gradients, and scale them down to the largest one allowed."""
        if not self._wants_norm:
            return
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self._norm = norm
        if self._max_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self._max_norm, norm)


class AutogradEngine(_TorchEngine):
    """The model's fused operators under PyTorch autograd."""

    name = "autograd"

    def __init__(self, model: MLP, examples: Examples, config: TrainConfig) -> None:
        device = _without_kernels(model)
        if device is not None:
            raise ValueError(
                f"Trainer: engine='autograd' has no kernels for the model's device, {device}: "
                "use engine='reference' there"
            )
        super().__init__(model, examples, config)


class ReferenceEngine(_TorchEngine):
    """The plain PyTorch model on the same parameters, stepped as in the lecture."""

    name = "reference"

    def __init__(self, model: MLP, examples: Examples, config: TrainConfig) -> None:
        super().__init__(model, examples, config)

    @property
    def model(self) -> reference.MLP:
        """The plain model, with what is attached to the model now."""
        return _plain(self._model)


# The loss of each complete step that has not been noted, and the norm of its gradients.
Results = dict[int, tuple[Tensor | float, Tensor | None]]


def _note(steps: Steps, results: Results) -> None:
    """Note the results of the complete steps; this may be done again, after an interruption."""
    complete = sorted(k for k in results if k < steps.done)
    if not complete:
        return
    noted = slice(complete[0], complete[-1] + 1)
    losses, norms = zip(*(results[k] for k in complete), strict=True)
    steps.losses[noted] = _float64(losses)
    if steps.grad_norms is not None:
        steps.grad_norms[noted] = _float64(norms)
    results.clear()


def _float64(values: Sequence[Tensor | float]) -> Tensor:
    """The values on the CPU; those of a device come in one piece, which waits for it once."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    if tensors:
        return torch.stack(tensors).to("cpu", torch.float64)
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def _without_kernels(model: nn.Module) -> torch.device | None:
    """A device of the parameters that the fused operators have no kernels for, if there is one."""
    devices = (parameter.device for parameter in model.parameters())
    lacking = (d for d in devices if d.type not in KERNEL_DEVICES or too_old(d))
    return next(lacking, None)


def choose_engine(model: MLP, config: TrainConfig) -> tuple[str, str]:
    """The name of the engine to train with, for ``"auto"`` the fastest that applies, and why."""
    if config.engine != "auto":
        return config.engine, "as configured"
    on_device = _native_class(model) is DeviceEngine
    obstacle = DeviceEngine.obstacle(model, config) if on_device else NativeEngine.obstacle(model)
    if obstacle is None:
        return "native", "the fastest"
    engine = "autograd" if _without_kernels(model) is None else "reference"
    return engine, f"native does not apply: {obstacle}"


def make_engine(name: str, model: MLP, examples: Examples, config: TrainConfig) -> Engine:
    """The engine of that name."""
    return _ENGINES[name](model, examples, config)


def _native_class(model: MLP) -> type[NativeEngine] | type[DeviceEngine]:
    """The native engine of the model's device."""
    on_device = next(model.parameters()).device.type in device_engine.DEVICES
    return DeviceEngine if on_device else NativeEngine


def _native_engine(model: MLP, examples: Examples, config: TrainConfig) -> Engine:
    return _native_class(model)(model, examples, config)


_ENGINES: dict[str, Callable[[MLP, Examples, TrainConfig], Engine]] = {
    "native": _native_engine,
    "autograd": AutogradEngine,
    "reference": ReferenceEngine,
}


def _plain(model: MLP | reference.MLP) -> reference.MLP:
    """The layers, parameters and hooks of ``model`` under `reference.MLP`, which calls the layers.

    A model of a subclass computes as the subclass says, and stays what it is.
    """
    if type(model) is not MLP:
        return model
    plain = copy.copy(model)  # has the same dicts of layers, parameters and hooks
    object.__setattr__(plain, "__class__", reference.MLP)
    return plain


def _check_sparse(model: nn.Module, config: TrainConfig) -> None:
    """Refuse options that torch has not for the gradients of ``nn.Embedding(sparse=True)``."""
    sparse = [name for name, m in model.named_modules() if getattr(m, "sparse", False) is True]
    norms = config.max_grad_norm is not None or config.log_grad_norm
    if sparse and (norms or config.optimizer == "adamw" or weight_decay(config) != 0):
        raise ValueError(
            f"Trainer: {sparse[0]} has sparse=True, whose gradients torch takes without AdamW, "
            "weight decay and gradient norms alone: leave these out, or make it sparse=False"
        )


def _optimizer(
    parameters: Mapping[str, nn.Parameter], config: TrainConfig
) -> torch.optim.Optimizer:
    """The optimizer of the parameters by name; biases that do not decay make a group."""
    options: dict[str, Any] = {"lr": config.lr}
    if config.weight_decay is not None:
        options["weight_decay"] = config.weight_decay
    groups: list[dict[str, Any]] = [{"params": list(parameters.values())}]
    if not config.decay_biases:
        is_bias = {name: _is_bias(name) for name in parameters}
        decaying = [p for name, p in parameters.items() if not is_bias[name]]
        biases = [p for name, p in parameters.items() if is_bias[name]]
        groups = [{"params": decaying}, {"params": biases, "weight_decay": 0.0}]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, **options)
    if config.optimizer == "momentum":
        options["momentum"] = config.momentum
    return torch.optim.SGD(groups, **options)


def _is_bias(path: str) -> bool:
    """Pruning renames a bias to bias_orig, a parametrization to parametrizations.bias.original."""
    return any(name.removesuffix("_orig") == "bias" for name in path.split("."))
