"""Suite `run`: the whole training loop as it is run, batch draws and recorded losses included.

The time is per step. `eager` is the lecture's loop, which keeps ``loss.item()``; `compile` the same
with torch.compile around the loss; `jax` one jitted lax.scan that returns the losses; `pymlp`,
`native-1` and `native` are what `Trainer` runs between two evaluations with the engine autograd,
native on one thread, and native. On a GPU there are `reduce-overhead` and `captured` besides, as in
suite `step`; the latter does not keep its losses. Where a call does many steps, it does about as
many as in a training run: 20 ms' worth.
"""

import time
from collections.abc import Callable
from functools import partial

import torch

from .harness import Builder, Case, Suite, Task
from .loops import (
    CHECKED_STEPS,
    LECTURE,
    NAMES_V,
    CapturedLoop,
    EngineLoop,
    Forward,
    LectureLoop,
    Sizes,
    check_engine,
    check_lecture,
    compiled_loss,
    lecture_loss,
)

CALL_SECONDS = 0.02

# Other sizes, each at its batch size.
OTHERS = {Sizes(T=8, E=24, H=400, V=NAMES_V): 128, Sizes(T=5, E=64, H=1000, V=100): 512}


def steps_per_call(advance: Callable[[int], object]) -> int:
    """How many steps ``advance`` does in CALL_SECONDS; at least one."""
    few = 4
    advance(few)
    start = time.perf_counter()
    advance(few)
    return max(1, round(CALL_SECONDS * few / (time.perf_counter() - start)))


def lecture(case: Case, forward: Forward) -> Task:
    """The lecture's loop with its loss computed by ``forward``."""
    loop = LectureLoop(Sizes.of(case), case.batch_size, forward)
    return Task(loop.recorded_step, lambda: check_lecture(case, forward))


def _eager(case: Case) -> Task:
    return lecture(case, lecture_loss)


def _compile(case: Case) -> Task:
    return lecture(case, compiled_loss())


def _reduce_overhead(case: Case) -> Task:
    forward = compiled_loss("reduce-overhead")
    loop = LectureLoop(Sizes.of(case), case.batch_size, forward)

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        loop.recorded_step()

    return Task(step, lambda: check_lecture(case, forward))


def _captured(case: Case) -> Task:
    loop = CapturedLoop(Sizes.of(case), case.batch_size)
    return Task(loop.step, lambda: check_lecture(case, kind=CapturedLoop))


def _jax(case: Case) -> Task:
    from .loops_jax import JaxLoop

    loop = JaxLoop(case, record=True)
    steps = steps_per_call(loop.advance)
    return Task(lambda: loop.advance(steps), lambda: loop.check(CHECKED_STEPS), steps)


def _engine(case: Case, engine: str, threads: int | None = None) -> Task:
    sizes = Sizes.of(case)
    steps = steps_per_call(EngineLoop(sizes, case.batch_size, engine, threads).advance)
    loop = EngineLoop(sizes, case.batch_size, engine, threads)
    return Task(lambda: loop.advance(steps), lambda: check_engine(case, engine, threads), steps)


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """The lecture's sizes at each batch size, others at theirs or the largest that is wanted."""
    lecture = [Case("run", "sgd", "step", batch_size, str(LECTURE)) for batch_size in batch_sizes]
    return lecture + [
        Case("run", "sgd", "step", min(batch_size, max(batch_sizes)), str(sizes))
        for sizes, batch_size in OTHERS.items()
    ]


def builders(case: Case) -> dict[str, Builder]:
    """Every provider runs the whole loop."""
    return {
        "eager": _eager,
        "compile": _compile,
        "reduce-overhead": _reduce_overhead,
        "captured": _captured,
        "jax": _jax,
        "pymlp": partial(_engine, engine="autograd"),
        "native-1": partial(_engine, engine="native", threads=1),
        "native": partial(_engine, engine="native"),
    }


SUITE = Suite("run", cases, builders, tolerance=2e-5, on_gpu=True)
