"""Suite `words`: a vocabulary of 17,905 words, where the logits fill memory.

`sgd` is the training loop of suite `run` at the sizes of Bengio et al. (2003), on random words;
`chunked` is the lecture's loop with F.linear_cross_entropy for the output layer and its loss. It is
for the CPU.

The losses alone are measured at 8,192 rows. `copy` copies the logits within the device's memory:
what it moves in a second is what the others can be held against. `bytes` of a row are those that
cannot be avoided: the logits read once by a forward and once by a backward, the gradient written
once.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from . import device, ops, training
from .harness import Builder, Case, Suite, Task
from .loops import Sizes

MODELS = tuple(Sizes(T=4, E=E, H=100, V=17905) for E in (30, 60))
MODEL_BATCH_SIZES = (256, 4096)
N = 8192
SHAPES = {"cross_entropy": "V=17904", "linear_cross_entropy": "H=100 V=17904"}
# Passes over the logits in each mode.
PASSES = {"forward": 1, "backward": 2, "full": 3}


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """The training loop at batch sizes of its own, both losses in each mode at one size."""
    steps = [
        Case("words", "sgd", "step", batch_size, str(sizes))
        for sizes in MODELS
        for batch_size in MODEL_BATCH_SIZES
        if not device.is_gpu()
    ]
    return steps + [
        Case("words", op, mode, N, shape)
        for op, shape in SHAPES.items()
        for mode in ops.MODES
        if mode in modes
    ]


def _chunked_loss(
    Xb: Tensor, Yb: Tensor, C: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor
) -> Tensor:
    emb = C[Xb]
    h = torch.tanh(emb.view(-1, W1.shape[0]) @ W1 + b1)
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(h, W2.T, Yb, linear_bias=b2, options=options)


def _chunked(case: Case) -> Task:
    return training.lecture(case, _chunked_loss)


def _logits_bytes(case: Case) -> int:
    return case.batch_size * ops.sizes(case)["V"] * torch.float32.itemsize


def _copy(case: Case) -> Task:
    logits = torch.randn(case.batch_size, ops.sizes(case)["V"], device=device.current())
    copy = torch.empty_like(logits)
    copied = {"copy": copy}

    def run() -> None:
        copy.copy_(logits)

    def check() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        run()
        return copied, {"copy": logits}

    return Task(run, check, bytes=2 * _logits_bytes(case))


def _counted(build: Builder) -> Builder:
    """The same task with its bytes."""

    def counted(case: Case) -> Task:
        return replace(build(case), bytes=PASSES[case.mode] * _logits_bytes(case))

    return counted


def builders(case: Case) -> dict[str, Builder]:
    """Providers of the loop, or of the op and, beside the one that only moves memory, a copy."""
    if case.op == "sgd":
        return training.builders(case) | {"chunked": _chunked}
    able = ops.builders(case)
    if case.op == "cross_entropy":
        able = {name: _counted(build) for name, build in able.items()} | {"copy": _copy}
    return able


SUITE = Suite("words", cases, builders, ops.SUITE.tolerance, by_default=False, on_gpu=True)
