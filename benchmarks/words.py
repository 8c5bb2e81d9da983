"""Suite `words`: the losses over a vocabulary of words, 8,192 rows, where the logits fill memory.

`copy` copies the logits within the device's memory: what it moves in a second is what the others
can be held against. `bytes` of a row are those that cannot be avoided: the logits read once by a
forward and once by a backward, the gradient written once.
"""

from dataclasses import replace

import torch

from . import device, ops
from .harness import Builder, Case, Suite, Task

N = 8192
SHAPES = {"cross_entropy": "V=17904", "linear_cross_entropy": "H=100 V=17904"}
# Passes over the logits in each mode.
PASSES = {"forward": 1, "backward": 2, "full": 3}


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """Both losses in each mode, at one size."""
    return [
        Case("words", op, mode, N, shape)
        for op, shape in SHAPES.items()
        for mode in ops.MODES
        if mode in modes
    ]


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
    """Providers of the op and, beside the one that does nothing but move memory, a copy."""
    able = ops.builders(case)
    if case.op == "cross_entropy":
        able = {name: _counted(build) for name, build in able.items()} | {"copy": _copy}
    return able


SUITE = Suite("words", cases, builders, ops.SUITE.tolerance, by_default=False, on_gpu=True)
