"""Steps of a model of any size on a device: the kernels of the fused operators, and one for the
update, captured once as a CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pymlp._library import ops
from pymlp.config import TrainConfig
from pymlp.device_capture import CapturedLaunch
from pymlp.device_results import DeviceResults, wait
from pymlp.model import MLP
from pymlp.reference import DropoutMasks
from pymlp.steps import Steps

if TYPE_CHECKING:
    from pymlp.device_engine import DeviceEngine

# Steps whose rates and results there is room for.
_MOST_STEPS = 1024


class GraphSteps:
    """The steps of an engine.

    Args:
        engine: whose.
        model: its.
        config: of the run.
        at_once: steps whose indices are to be on the device at once.
    """

    def __init__(self, engine: DeviceEngine, model: MLP, config: TrainConfig, at_once: int) -> None:
        self._engine = engine
        self._model = model
        self._config = config
        self._at_once = min(at_once, _MOST_STEPS)
        self._step: _Step | None = None

    def run(self, steps: Steps) -> None:
        step = self._present_step(steps)
        for start in range(0, len(steps), self._at_once):
            if steps.stopping:
                break
            part = slice(start, min(start + self._at_once, len(steps)))
            step.fill(steps, part)
            steps.unsettled = partial(step.collect, steps, start)
            try:
                for _ in range(part.start, part.stop):
                    if steps.stopping:
                        break
                    step.advance()
                wait([step.results])
            finally:
                steps.settle()

    def _present_step(self, steps: Steps) -> _Step:
        """The step on the memory that the model has now; made anew where that has changed."""
        wants_norms = steps.grad_norms is not None or self._config.max_grad_norm is not None
        if self._step is None or not self._step.fits(wants_norms):
            self._step = None  # and its memory, before there is more
            self._step = _Step(self._engine, self._model, self._config, self._at_once, wants_norms)
        return self._step


class _Step:
    """A step as a graph of kernels that find all they need on the device, its number too.

    Args:
        engine: whose model is trained, where it lies.
        model: its.
        config: of the run.
        at_once: steps there is room for.
        wants_norms: whether there are norms of gradients.

    Attributes:
        number: (1,) int64 on the device, of those steps: how many are done.
        results: theirs.
        captured: the graph.
    """

    def __init__(
        self,
        engine: DeviceEngine,
        model: MLP,
        config: TrainConfig,
        at_once: int,
        wants_norms: bool,
    ) -> None:
        self._engine = engine
        self._loss = _Loss(model, config)
        self._max_norm = config.max_grad_norm
        self._arrays = engine.arrays()
        self._parameters, self._first, self._second = self._arrays
        like = self._parameters[0]
        device = like.device
        self.number = torch.zeros(1, dtype=torch.int64, device=device)
        self._number_before = torch.zeros_like(self.number)  # of the first of those steps
        self._indices = torch.zeros((at_once, config.batch_size), dtype=torch.int32, device=device)
        self._rates = like.new_zeros((at_once, 3))
        self._losses = torch.zeros(at_once, dtype=torch.float64, device=device)
        self._norms = torch.zeros_like(self._losses) if wants_norms else None
        self.results = DeviceResults(self.number, self._losses, self._norms)
        self.captured = CapturedLaunch(device)

    def fits(self, wants_norms: bool) -> bool:
        """Whether the model still lies where it did, and no more is asked for."""
        addresses, now = (
            [x.data_ptr() for group in arrays for x in group]
            for arrays in (self._arrays, self._engine.arrays())
        )
        return addresses == now and wants_norms == (self._norms is not None)

    def fill(self, steps: Steps, part: slice) -> None:
        """Set the inputs of the next steps, which count from 0."""
        self.results.begin()
        count = part.stop - part.start
        device = self.number.device
        done = torch.tensor([self._engine.state.updates], device=device)
        rates = steps.rates[part].to(device)
        self._rates[:count] = ops.training_rates(
            rates, done, self._parameters[0], self._engine.settings
        )
        self._indices[:count] = steps.indices[part].to(device, torch.int32)
        self._number_before.fill_(steps.first + part.start)
        self.number.zero_()

    def advance(self) -> None:
        """Launch a step."""
        self.captured(self._launch)

    def collect(self, steps: Steps, start: int) -> None:
        """Note what was done from ``start`` on, which has to be waited for if nobody has."""
        self.results.note(steps, start, 0)

    @torch.no_grad()
    def _launch(self) -> None:
        tokens, targets = ops.step_batch(
            self._indices, self.number, self._engine.tokens, self._engine.targets
        )
        loss, gradients = self._loss.with_gradients(
            tokens, targets, self._number_before, self.number
        )
        factor = self._factor(gradients)
        # Last, and one op: it updates, notes the loss, and counts the step as done.
        ops.mlp_update(
            self._parameters,
            gradients,
            self._first,
            self._second,
            self._rates,
            self.number,
            factor,
            loss,
            self._losses,
            self._engine.settings,
        )

    def _factor(self, gradients: Sequence[Tensor]) -> Tensor | None:
        """Notes the norm of the gradients; what scales them down to the largest one allowed."""
        if self._norms is None:
            return None
        trained = zip(gradients, self._engine.settings_of_parameters, strict=True)
        squares = [gradient.double().square().sum() for gradient, wanted in trained if wanted]
        norm = torch.stack(squares).sum().sqrt().view(1)
        self._norms.index_copy_(0, self.number, norm)
        if self._max_norm is None:
            return None
        return (self._max_norm / (norm + 1e-6)).clamp(max=1).to(self._rates.dtype)


class _Loss:
    """The loss that steps minimise, computed without the host.

    It is differentiated by parameters of its own on the model's memory. A loss that the user has
    of the model's keeps their nodes of the graph of autograd, which belong to the stream that they
    were made on: in a capture that one would have to be waited for.

    Args:
        model: on the device.
        config: of the run.
    """

    def __init__(self, model: MLP, config: TrainConfig) -> None:
        self._model = _on_the_same_memory(model)
        self._config = config
        self._is_one_op = not (model.config.direct or config.z_loss or config.dropout)

    def with_gradients(
        self, tokens: Tensor, targets: Tensor, before: Tensor, number: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss of a batch in step ``before + number`` (1,), and the gradient of each parameter:
        of those that are frozen, any tensor."""
        parameters = list(self._model.parameters())
        if self._is_one_op:
            loss, *gradients = ops.mlp_cross_entropy_forward_backward(
                None,
                tokens,
                targets,
                *(parameter.detach() for parameter in parameters),
                -100,  # ignore_index: no target is ignored
                1,  # reduction: mean
                self._config.label_smoothing,
            )
            return loss, gradients
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        with torch.enable_grad(), torch.autocast(tokens.device.type, enabled=False):
            loss = self._model.loss(
                tokens,
                targets,
                label_smoothing=self._config.label_smoothing,
                z_loss=self._config.z_loss,
                dropout=self._masks(before, number),
            )
            found = iter(torch.autograd.grad(loss, trained))
        gradients = [next(found).contiguous() if p.requires_grad else p for p in parameters]
        return loss.detach(), gradients

    def _masks(self, before: Tensor, number: Tensor) -> DropoutMasks | None:
        """The masks of `pymlp.dropout.dropout_masks`, drawn on the device."""
        config, sizes = self._config, self._model.config
        if config.dropout == 0.0:
            return None
        step = before + number

        def mask(hidden: bool, columns: int) -> Tensor:
            drawn: Tensor = ops.dropout_mask(
                self._model.embedding.weight.detach(),
                step,
                config.seed,
                hidden,
                config.dropout,
                config.batch_size,
                columns,
            )
            return drawn

        return DropoutMasks(
            mask(False, sizes.block_size * sizes.n_embd), mask(True, sizes.n_hidden)
        )


def _on_the_same_memory(model: MLP) -> MLP:
    """A model with parameters of its own, where those of ``model`` lie now."""
    with torch.device("meta"):
        other = MLP(model.config)
    for path, parameter in model.named_parameters():
        module, _, name = path.rpartition(".")
        alias = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        setattr(other.get_submodule(module), name, alias)
    return other
