"""The exact loss of a model on a whole split."""

import math

import torch

from pymlp import device_inference, reference
from pymlp.data import Examples
from pymlp.inference import is_native, token_losses
from pymlp.model import MLP
from pymlp.plain import check_model

# Examples in a call of the native code, which divides them further.
_NATIVE_ROWS = 2**15


@torch.no_grad()
def evaluate(model: MLP | reference.MLP, examples: Examples, batch_size: int = 4096) -> float:
    """Mean cross-entropy of ``model`` over every example, in nats per token.

    The mean is weighted by the number of examples in each chunk and summed in double precision, so
    that it does not depend on ``batch_size`` beyond rounding. An `MLP` as the native engine trains
    it is evaluated by its code and threads, with the same bits for any number of them. A model that
    hooks or other attachments act on is called by PyTorch, so that they do.

    Args:
        model: computes on the device that it is on.
        examples: N examples; they are moved to the model's device, if it is a GPU as a whole, where
            they stay for the next time.
        batch_size: examples in a chunk where PyTorch does the work; only memory and speed depend
            on it.

    Raises:
        TypeError: ``model`` is of another kind, such as DDP.
        ValueError: there is no example, or ``batch_size`` is less than 1.
    """
    check_model("evaluate", model)
    if batch_size < 1:
        raise ValueError(f"evaluate: batch_size must be at least 1, got {batch_size}")
    if len(examples) == 0:
        raise ValueError("evaluate: there are no examples to take the mean of")
    if type(model) is MLP and device_inference.applies(model):
        return device_inference.mean_loss(model, examples)
    native = type(model) is MLP and is_native(model)  # the reference stays plain PyTorch
    total = 0.0
    for tokens, targets in examples.parts(_NATIVE_ROWS if native else batch_size):
        if native:
            total += token_losses(model, tokens, targets).sum().item()
        else:
            device = next(model.parameters()).device
            total += model.loss(tokens.to(device), targets.to(device)).item() * len(targets)
    return total / len(examples)


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token; inf where that is beyond any float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
