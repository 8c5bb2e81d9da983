"""The exact loss of a model on a whole split."""

import math

import torch

from pymlp import reference
from pymlp.data import Examples
from pymlp.model import MLP


@torch.no_grad()
def evaluate(model: MLP | reference.MLP, examples: Examples, batch_size: int = 4096) -> float:
    """Mean cross-entropy of ``model`` over every example, in nats per token.

    The mean is weighted by the number of examples in each chunk and summed in double precision, so
    that it does not depend on ``batch_size`` beyond rounding.

    Args:
        model: computes on the device that it is on.
        examples: N examples; they are moved to the model's device chunk by chunk.
        batch_size: examples in a chunk; only memory and speed depend on it.

    Raises:
        ValueError: there is no example, or ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"evaluate: batch_size must be at least 1, got {batch_size}")
    if len(examples) == 0:
        raise ValueError("evaluate: there are no examples to take the mean of")
    device = next(model.parameters()).device
    total = 0.0
    for start in range(0, len(examples), batch_size):
        chunk = slice(start, start + batch_size)
        tokens, targets = examples.tokens[chunk], examples.targets[chunk]
        loss = model.loss(tokens.to(device), targets.to(device))
        total += loss.item() * len(targets)
    return total / len(examples)


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token; inf where that is beyond any float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
