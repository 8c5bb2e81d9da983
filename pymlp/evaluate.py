"""The exact loss of a model on a whole split."""

import math
from collections.abc import Callable

import torch

from pymlp import device_inference, reference
from pymlp.arguments import to_int
from pymlp.data import Examples
from pymlp.inference import is_native, token_losses
from pymlp.model import MLP
from pymlp.plain import check_model

# Examples in a call of the native code, which divides them further.
_NATIVE_ROWS = 2**15

# Examples in the sample of a large train split.
SAMPLE_SIZE = 100_000


@torch.no_grad()
def evaluate(
    model: MLP | reference.MLP,
    examples: Examples,
    batch_size: int = 4096,
    progress: Callable[[int], None] | None = None,
) -> float:
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
        progress: called with the number of examples that are done, after each chunk; never where
            a GPU does the work.

    Raises:
        TypeError: ``model`` is of another kind, such as DDP, or ``batch_size`` is not an int.
        ValueError: there is no example, or ``batch_size`` is less than 1.
    """
    check_model("evaluate", model)
    batch_size = to_int("evaluate", "batch_size", batch_size, 1)
    if len(examples) == 0:
        raise ValueError("evaluate: there are no examples to take the mean of")
    if type(model) is MLP and device_inference.applies(model):
        return device_inference.mean_loss(model, examples)
    native = type(model) is MLP and is_native(model)  # the reference stays plain PyTorch
    total, done = 0.0, 0
    for tokens, targets in examples.parts(_NATIVE_ROWS if native else batch_size):
        if native:
            total += token_losses(model, tokens, targets).sum().item()
        else:
            device = next(model.parameters()).device
            total += model.loss(tokens.to(device), targets.to(device)).item() * len(targets)
        done += len(targets)
        if progress is not None:
            progress(done)
    return total / len(examples)


def is_sampled(train: Examples, eval_train: str) -> bool:
    """Whether evaluations see a sample of ``train``; see `TrainConfig.eval_train`."""
    return eval_train == "sample" and len(train) > SAMPLE_SIZE


def evaluated_part(train: Examples, eval_train: str) -> Examples | None:
    """The examples of ``train`` that evaluations are over; see `TrainConfig.eval_train`."""
    if eval_train == "no":
        return None
    if not is_sampled(train, eval_train):
        return train
    indices = torch.arange(SAMPLE_SIZE, device="cpu") * len(train) // SAMPLE_SIZE
    return Examples(*train.take(indices))


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token; inf where that is beyond any float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
