"""Suite `dev-loss`: how long training takes until the loss on dev is below a target.

The lecture's model and schedule (200,000 steps of 32 examples, rate 0.1, then 0.01 for the second
half) from parameters with unsaturated hidden units. Every 2,000 steps the loss over all of dev is
evaluated, which is not counted. All providers draw the same batches, so they differ in the time of
a step alone. Each case is trained once: the loop of `eager` takes minutes.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pymlp.config import TrainConfig
from pymlp.evaluate import evaluate
from pymlp.model import MLP

from .harness import Builder, Case, Suite, Task, measure_whole
from .loops import (
    LECTURE,
    LR,
    EngineLoop,
    LectureLoop,
    check_engine,
    check_lecture,
    dataset,
    make_model,
)

TARGETS = (2.20, 2.17)
STEPS = 200_000
EVAL_EVERY = 2_000


def _seconds_below(
    target: float, advance: Callable[[int], object], model: Callable[[], MLP]
) -> float:
    """Seconds in ``advance`` until the dev loss of ``model`` is below ``target``."""
    seconds = 0.0
    for _ in range(0, STEPS, EVAL_EVERY):
        start = time.perf_counter()
        advance(EVAL_EVERY)
        seconds += time.perf_counter() - start
        if evaluate(model(), dataset(LECTURE.T).dev) < target:
            return seconds
    raise RuntimeError(f"a dev loss below {target:.2f} was not reached in {STEPS:,} steps")


def _settings() -> dict[str, Any]:
    return {"steps": STEPS, "lr": LR, "schedule": "step"}


def _eager(case: Case) -> Task:
    def run() -> float:
        loop, rate = LectureLoop(LECTURE, case.batch_size), TrainConfig(**_settings()).learning_rate

        def advance(steps: int) -> None:
            for step in range(len(loop.lossi), len(loop.lossi) + steps):
                loop.recorded_step(rate(step))

        return _seconds_below(_target(case), advance, lambda: make_model(LECTURE, loop.values()))

    return Task(run, lambda: check_lecture(case))


def _engine(case: Case, engine: str, threads: int | None = None) -> Task:
    def run() -> float:
        loop = EngineLoop(LECTURE, case.batch_size, engine, threads, **_settings())
        return _seconds_below(_target(case), loop.advance, lambda: loop.model)

    return Task(run, lambda: check_engine(case, engine, threads))


def _target(case: Case) -> float:
    return float(case.op.split()[-1])


def cases(batch_sizes: list[int], modes: list[str]) -> list[Case]:
    """One per target, at the lecture's batch size."""
    return [Case("dev-loss", f"below {t:.2f}", "fit", 32, str(LECTURE)) for t in TARGETS]


def builders(case: Case) -> dict[str, Builder]:
    """The lecture's loop and the engines."""
    return {
        "eager": _eager,
        "pymlp": partial(_engine, engine="autograd"),
        "native-1": partial(_engine, engine="native", threads=1),
        "native": partial(_engine, engine="native"),
    }


SUITE = Suite(
    "dev-loss",
    cases,
    builders,
    tolerance=2e-5,
    measure=partial(measure_whole, most=1),
    by_default=False,
)
