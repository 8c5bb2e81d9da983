"""All parameters of a model in one vector, and training steps on it.

Autograd and the optimizer keep books per tensor. At small batches five tensors cost more time than
the arithmetic, so the autograd engine trains one leaf whose memory the five parameters view, as
cuDNN's recurrent layers keep theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from pymlp._autograd import FlatMLPCrossEntropy
from pymlp.model import MLP, MLPConfig

# Private, so it may be gone one day; `torch.autograd.grad` then does the same, a little slower.
_engine = getattr(torch.autograd.Variable, "_execution_engine", None)
_run_backward = getattr(_engine, "run_backward", None)

# FlatMLPCrossEntropy.apply without its look for torch.func transforms, which no step runs under.
_apply = super(torch.autograd.Function, FlatMLPCrossEntropy).apply


# The order of the vector, as mlp_cross_entropy_flat (csrc/ops/library.cpp) reads it.
LAYOUT = ("embedding.weight", "hidden.weight", "hidden.bias", "output.weight", "output.bias")
# The order of csrc/engine/model.h for a model with direct connections.
DIRECT_LAYOUT = (*LAYOUT, "direct.weight")


def layout(config: MLPConfig) -> tuple[str, ...]:
    """The names of a plain model's parameters, in the order of its state_dict."""
    return DIRECT_LAYOUT if config.direct else LAYOUT


class FlatParameters:
    """One leaf tensor whose memory the given parameters view from now on.

    Args:
        parameters: of one dtype and device. Their values stay; their memory is replaced.

    Attributes:
        vector: (sum of the parameters' sizes,), requires_grad, in the order of ``parameters``.
        values: the same memory as a tensor that autograd does not know.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._shapes = [p.shape for p in parameters]
        self._sizes = [p.numel() for p in parameters]
        like = parameters[0]
        self.values = torch.empty(sum(self._sizes), dtype=like.dtype, device=like.device)
        self.vector = nn.Parameter(self.values)
        self._views = self.split(self.values)
        self.gather()

    @staticmethod
    def can_hold(model: nn.Module) -> bool:
        """Whether every parameter is trained, on one device, in one dtype of full precision."""
        parameters = dict(model.named_parameters())
        return (
            type(model) is MLP
            and tuple(parameters) == LAYOUT
            and all(p.requires_grad for p in parameters.values())
            and len({p.device for p in parameters.values()}) == 1
            and {p.dtype for p in parameters.values()} in ({torch.float32}, {torch.float64})
            and len({p.data_ptr() for p in parameters.values()}) == len(LAYOUT)
        )

    def gather(self) -> None:
        """Take over the values of parameters whose memory was replaced since the last time."""
        for parameter, view in zip(self._parameters, self._views, strict=True):
            if parameter.data_ptr() != view.data_ptr():
                view.copy_(parameter.detach())
                parameter.data = view

    def split(self, value: Tensor) -> list[Tensor]:
        """A value for each parameter: views of a vector like ``vector``, copies of a number."""
        if value.dim() == 0:
            return [value.clone() for _ in self._sizes]
        parts = value.split(self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of ``split``."""
        return parts[0] if parts[0].dim() == 0 else torch.cat([p.reshape(-1) for p in parts])


@functools.cache
def _one(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones((), dtype=dtype, device=device)


def flat_gradient(
    vector: Tensor, tokens: Tensor, targets: Tensor, config: MLPConfig
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of a batch and its gradient, shaped like ``vector``."""
    sizes = (config.vocab_size, config.n_embd, config.n_hidden)
    one = _one(vector.dtype, vector.device)
    loss: Tensor = _apply(vector, (tokens, targets), sizes, (one,))
    if _run_backward is None:
        (gradient,) = torch.autograd.grad(loss, vector)
    else:
        # What torch.autograd.grad calls after 15 microseconds of looking at its arguments.
        (gradient,) = _run_backward(
            (loss,),
            (one,),
            False,  # retain_graph
            False,  # create_graph
            (vector,),
            allow_unreachable=False,
            accumulate_grad=False,
        )
    return loss, gradient


def flat_step(optimizer: torch.optim.Optimizer, flat: FlatParameters, gradient: Tensor) -> None:
    """``optimizer.step()`` for an optimizer of ``flat.vector`` alone.

    torch.optim.SGD is called through its functional form, without the hooks and the grouping of
    tensors that take ``step`` three times as long as the update.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        flat.vector.grad = gradient
        optimizer.step()
        return
    (group,) = optimizer.param_groups
    state = optimizer.state[flat.vector]
    buffers = [state.get("momentum_buffer")]
    sgd(
        [flat.values],
        [gradient],
        buffers,
        has_sparse_grad=False,
        foreach=False,
        fused=False,
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
    )
    if buffers[0] is not None:
        state["momentum_buffer"] = buffers[0]
