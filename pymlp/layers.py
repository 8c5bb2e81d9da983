"""Effects that users attach to the layers of a model, which act when a layer is called.

Fused operators and native code take the parameters of a model and call no layer: they may stand in
for layers that do nothing besides their formula.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from pymlp.reference import EmptyLinear

if TYPE_CHECKING:
    from pymlp.model import MLPConfig

# Parameter names, in the order of a state_dict and of csrc/engine/model.h.
_LAYOUT = ("embedding.weight", "hidden.weight", "hidden.bias", "output.weight", "output.bias")

_KINDS: dict[str, tuple[type, ...]] = {
    "embedding": (nn.Embedding,),
    "hidden": (nn.Linear, EmptyLinear),
    "output": (nn.Linear, EmptyLinear),
    "direct": (nn.Linear, type(None)),
}
# A parameter is a plain tensor under `torch.func.functional_call`.
_TENSORS = (nn.Parameter, Tensor, type(None))
_HOOKS = ("forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook")


def layout(config: MLPConfig) -> tuple[str, ...]:
    """The names of a plain model's parameters, in the order of its state_dict."""
    return (*_LAYOUT, "direct.weight") if config.direct else _LAYOUT


def layers_reason(model: nn.Module) -> str | None:
    """Why the formula of the model cannot stand in for calls of its layers; None if it can.

    It costs a microsecond or two, for every forward of the fused model asks.
    """
    layers = model._modules
    for name, kinds in _KINDS.items():
        layer = layers.get(name)
        if type(layer) not in kinds:
            return f"{name} is a {type(layer).__name__}, not a {kinds[0].__name__}"
        if layer is None:
            continue
        reason = call_reason(name, layer)
        if reason is not None:
            return reason
        for key, parameter in layer._parameters.items():
            if type(parameter) not in _TENSORS:
                return f"{name}.{key} is a {type(parameter).__name__}, not a plain parameter"
    return _options_reason(layers["embedding"])


def call_reason(name: str, module: nn.Module) -> str | None:
    """The reason why a call of ``module`` does more than its class's forward; None without one."""
    hooks = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    if any(hooks):
        return f"{name} has a {next(k for k, h in zip(_HOOKS, hooks, strict=True) if h)}"
    if "forward" in module.__dict__:
        return f"{name} has a forward of its own"
    if type(module).__call__ is not nn.Module.__call__:
        return f"{name} has a __call__ of its own"
    if (
        torch_module._global_forward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_backward_pre_hooks
        or torch_module._global_backward_hooks
    ):
        return "torch.nn has a hook of all modules"
    return None


def _options_reason(embedding: Any) -> str | None:
    """The option of an `nn.Embedding` that changes what it returns, or its gradient."""
    if embedding.max_norm is not None:
        return f"embedding has max_norm={embedding.max_norm}"
    if embedding.padding_idx is not None:
        return f"embedding has padding_idx={embedding.padding_idx}"
    if embedding.scale_grad_by_freq:
        return "embedding has scale_grad_by_freq=True"
    return "embedding has sparse=True" if embedding.sparse else None
