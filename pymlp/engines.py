"""What carries out training steps, each behind the interface `Engine`.

An engine is handed the indices and the learning rates of a run of steps and returns their losses.
It knows nothing of schedules, evaluation, files or the screen: that is the `Trainer`'s.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pymlp import reference
from pymlp.config import TrainConfig
from pymlp.data import Examples
from pymlp.flat import FlatParameters, flat_gradient, flat_step
from pymlp.model import MLP


class Engine(Protocol):
    """Training steps on a model's own parameters.

    Attributes:
        model: the module to evaluate with; it shares the trained parameters.
    """

    model: MLP | reference.MLP

    def run(self, indices: Tensor, rates: Sequence[float]) -> Tensor:
        """One step for each row of ``indices`` (K, B), with the K learning ``rates``.

        Returns:
            The loss of each step before its update, (K,) float64, on the CPU.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """The optimizer's tensors under ``<parameter>.<name>``."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what ``state_dict`` returned."""


class _TorchEngine:
    """Batches gathered for many steps at once, stepped with a torch.optim optimizer."""

    def __init__(self, model: MLP | reference.MLP, examples: Examples, config: TrainConfig) -> None:
        self.model = model
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise ValueError("Trainer: the model has no parameter with requires_grad=True")
        self._names = [name for name, _ in named]
        self._parameters = [parameter for _, parameter in named]
        self._optimizer = _optimizer(self._parameters, config)
        self._tokens, self._targets = examples.tokens, examples.targets

    def run(self, indices: Tensor, rates: Sequence[float]) -> Tensor:
        self._check_parameters()
        # index_select is cheaper than indexing, and starts no threads for a few rows.
        rows = indices.flatten().to(self._targets.device)
        tokens = self._tokens.index_select(0, rows).view(*indices.shape, -1).unbind()
        targets = self._targets.index_select(0, rows).view(indices.shape).unbind()
        group = self._optimizer.param_groups[0]
        losses: list[Tensor | float] = []
        for step_tokens, step_targets, rate in zip(tokens, targets, rates, strict=True):
            group["lr"] = rate
            losses.append(self._step(step_tokens, step_targets))
        self._optimizer.zero_grad()
        return torch.tensor([float(loss) for loss in losses], dtype=torch.float64)

    def state_dict(self) -> dict[str, Tensor]:
        state = self._optimizer.state
        return {
            f"{name}.{key}": value
            for name, parameter in zip(self._names, self._parameters, strict=True)
            for key, value in state.get(parameter, {}).items()
            if isinstance(value, Tensor)
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        indices = {name: index for index, name in enumerate(self._names)}
        tensors: dict[int, dict[str, Tensor]] = {}
        for path, value in state.items():
            name, _, key = path.rpartition(".")
            tensors.setdefault(indices[name], {})[key] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": tensors, "param_groups": groups})

    def _check_parameters(self) -> None:
        current = dict(self.model.named_parameters())
        for name, parameter in zip(self._names, self._parameters, strict=True):
            if current.get(name) is not parameter:
                raise RuntimeError(
                    f"Trainer: the parameter {name} was replaced after the Trainer was made; "
                    "make a new Trainer"
                )

    def _step(self, tokens: Tensor, targets: Tensor) -> Tensor | float:
        """One update; the loss before it: a number if asking for it waits for no device."""
        raise NotImplementedError


class AutogradEngine(_TorchEngine):
    """The model's fused operators under PyTorch autograd."""

    def __init__(self, model: MLP, examples: Examples, config: TrainConfig) -> None:
        device = next(model.parameters()).device
        if device.type != "cpu":
            raise ValueError(
                f"Trainer: engine='autograd' runs on the CPU, the model is on {device}: "
                "use engine='reference' there"
            )
        super().__init__(model, examples, config)

    def _step(self, tokens: Tensor, targets: Tensor) -> float:
        loss = self.model.loss(tokens, targets)
        # Cheaper than zero_grad() and backward(), which accumulate into existing gradients.
        gradients = torch.autograd.grad(loss, self._parameters)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        return loss.item()


class FlatAutogradEngine(_TorchEngine):
    """The same with all parameters in one vector: fewer microseconds, the same bits."""

    def __init__(self, model: MLP, examples: Examples, config: TrainConfig) -> None:
        super().__init__(model, examples, config)
        self._flat = FlatParameters(self._parameters)
        self._optimizer = _optimizer([self._flat.vector], config)

    def run(self, indices: Tensor, rates: Sequence[float]) -> Tensor:
        self._flat.gather()
        return super().run(indices, rates)

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": part
            for key, value in self._optimizer.state.get(self._flat.vector, {}).items()
            if isinstance(value, Tensor)
            for name, part in zip(self._names, self._flat.split(value), strict=True)
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        keys = {path.rpartition(".")[2] for path in state}
        joined = {
            key: self._flat.join([state[f"{name}.{key}"] for name in self._names]) for key in keys
        }
        groups = self._optimizer.state_dict()["param_groups"]
        tensors = {0: joined} if joined else {}
        self._optimizer.load_state_dict({"state": tensors, "param_groups": groups})

    def _step(self, tokens: Tensor, targets: Tensor) -> float:
        vector = self._flat.vector
        loss, gradient = flat_gradient(vector, tokens, targets, self.model.config)
        flat_step(self._optimizer, vector, gradient)
        return loss


class ReferenceEngine(_TorchEngine):
    """The plain PyTorch model on the same parameters, stepped as in the lecture."""

    def __init__(self, model: MLP, examples: Examples, config: TrainConfig) -> None:
        super().__init__(_plain(model), examples, config)

    def _step(self, tokens: Tensor, targets: Tensor) -> Tensor:
        loss = self.model.loss(tokens, targets)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.data  # detach() would keep the graph's memory until the block ends


def make_engine(model: MLP, examples: Examples, config: TrainConfig) -> Engine:
    """The engine that ``config.engine`` names."""
    return _ENGINES[config.engine](model, examples, config)


def _autograd_engine(model: MLP, examples: Examples, config: TrainConfig) -> Engine:
    flat = FlatParameters.can_hold(model)
    return (FlatAutogradEngine if flat else AutogradEngine)(model, examples, config)


_ENGINES = {"autograd": _autograd_engine, "reference": ReferenceEngine}


def _plain(model: MLP) -> reference.MLP:
    """The reference model with ``model``'s own parameter objects."""
    # On the meta device the throwaway initialisation costs nothing and draws nothing from the
    # global random generator.
    with torch.device("meta"):
        plain = reference.MLP(model.config)
    known = [path for path, _ in plain.named_parameters()]
    for path, _ in model.named_parameters():
        if path not in known:
            raise ValueError(
                "Trainer: engine='reference' runs pymlp.reference.MLP, which has no parameter "
                f"{path} as this {type(model).__name__} has: use engine='autograd'"
            )
    for path in known:
        module, _, name = path.rpartition(".")
        # One parameter may stand in two places, a bias may be None.
        setattr(plain.get_submodule(module), name, getattr(model.get_submodule(module), name))
    return plain


def _optimizer(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": config.lr}
    if config.weight_decay is not None:
        options["weight_decay"] = config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, betas=config.betas, eps=config.eps, **options)
    if config.optimizer == "momentum":
        options["momentum"] = config.momentum
    return torch.optim.SGD(parameters, **options)
