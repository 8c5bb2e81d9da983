"""Suite `step`: a whole training step of the lecture's model with SGD, the batch draw included.

The model is E=10, H=200, T=3, V=27 on the bundled names, split with seed 42; the time is per step.
The loop of `eager` is the lecture's own, `compile` is the same with torch.compile around the
forward pass and the loss, `reduce-overhead` likewise in that mode, `captured` is the lecture's step
recorded in a CUDA graph, `jax` is one jitted lax.scan over many steps, `pymlp` is what `Trainer`
runs with ``engine="autograd"``: fused operators under PyTorch autograd, torch.optim.SGD.
"""

import torch

from .harness import Builder, Case, Suite, Task
from .loops import (
    LECTURE,
    CapturedLoop,
    EngineLoop,
    Forward,
    LectureLoop,
    check_engine,
    check_lecture,
    compiled_loss,
    lecture_loss,
)


def steps_per_call(batch_size: int) -> int:
    """Steps in one call of a provider that runs many."""
    return max(1, min(64, 4096 // batch_size))


def _lecture(case: Case, forward: Forward) -> Task:
    loop = LectureLoop(LECTURE, case.batch_size, forward)
    return Task(loop.step, lambda: check_lecture(case, forward))


def _eager(case: Case) -> Task:
    return _lecture(case, lecture_loss)


def _compile(case: Case) -> Task:
    return _lecture(case, compiled_loss())


def _reduce_overhead(case: Case) -> Task:
    forward = compiled_loss("reduce-overhead")
    loop = LectureLoop(LECTURE, case.batch_size, forward)

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        loop.step()

    return Task(step, lambda: check_lecture(case, forward))


def _captured(case: Case) -> Task:
    loop = CapturedLoop(LECTURE, case.batch_size)
    return Task(loop.step, lambda: check_lecture(case, kind=CapturedLoop))


def _jax(case: Case) -> Task:
    from .loops_jax import JaxLoop

    steps = steps_per_call(case.batch_size)
    loop = JaxLoop(case)
    # The program that is timed, `steps` steps long.
    return Task(lambda: loop.advance(steps), lambda: loop.check(steps), steps)


def _pymlp(case: Case) -> Task:
    steps = steps_per_call(case.batch_size)
    loop = EngineLoop(LECTURE, case.batch_size, "autograd")
    return Task(lambda: loop.advance(steps), lambda: check_engine(case, "autograd"), steps)


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """One per batch size; the only mode is a whole step."""
    return [Case("step", "sgd", "step", batch_size, str(LECTURE)) for batch_size in batch_sizes]


def builders(case: Case) -> dict[str, Builder]:
    """Every provider does the whole step."""
    return {
        "eager": _eager,
        "compile": _compile,
        "reduce-overhead": _reduce_overhead,
        "captured": _captured,
        "jax": _jax,
        "pymlp": _pymlp,
    }


SUITE = Suite("step", cases, builders, tolerance=2e-5, on_gpu=True)
