"""Whether native code may stand in for a model, and if not, why not.

Training, evaluation, scoring and sampling all ask here. A model that is not plain is called as
PyTorch calls it, so that everything attached to it acts.
"""

from __future__ import annotations

from torch import nn

from pymlp import reference
from pymlp.layers import call_reason, layers_reason, layout
from pymlp.model import MLP, MLPConfig


def check_model(caller: str, model: object) -> None:
    """Raise TypeError unless ``model`` is a `pymlp.MLP`, a `pymlp.reference.MLP` or of a subclass.

    Args:
        caller: the function that was given it, which begins the message.
    """
    if isinstance(model, reference.MLP):
        return
    given, mend = type(model).__name__, "copy its parameters into one with load_state_dict"
    if isinstance(model, nn.Module):
        for path, module in model.named_modules():
            if isinstance(module, reference.MLP):
                mend = f"pass model.{path}, which is one"
                break
    elif isinstance(model, type):
        given, mend = f"the class {model.__name__}", "make a model, such as MLP(MLPConfig(27))"
    else:
        mend = "make one, such as MLP(MLPConfig(27))"
    raise TypeError(
        f"{caller}: the model must be a pymlp.MLP or pymlp.reference.MLP, got {given}: {mend}"
    )


def unsupported_reason(model: reference.MLP) -> str | None:
    """Why native code cannot compute what ``model`` does; None if it can.

    Device and dtype are left to the caller, who knows what there are kernels for.
    """
    if type(model) not in (MLP, reference.MLP):
        return f"the model is a {type(model).__name__}, not a plain MLP"
    reason = call_reason("the model", model) or layers_reason(model)
    if reason is not None:
        return reason
    if "loss" in vars(model):
        return "the model has a loss of its own"
    parameters = dict(model.named_parameters())
    names = layout(model.config)
    if tuple(parameters) != names:
        return f"the parameters are {', '.join(parameters)}, not {', '.join(names)}"
    for (name, parameter), shape in zip(parameters.items(), _shapes(model.config), strict=False):
        if tuple(parameter.shape) != shape:
            return f"{name} has shape {tuple(parameter.shape)}, not {shape} as its config says"
    return None


def gradient_hooks_reason(model: nn.Module) -> str | None:
    """The parameter whose gradient has hooks, which autograd alone calls; None without one."""
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            return f"{name} has hooks, which only PyTorch autograd calls"
    return None


def _shapes(config: MLPConfig) -> tuple[tuple[int, ...], ...]:
    """The shapes of the parameters as in `layout`; the last is that of direct connections."""
    V, H = config.vocab_size, config.n_hidden
    n_input = config.block_size * config.n_embd
    return (V, config.n_embd), (H, n_input), (H,), (V, H), (V,), (V, n_input)
