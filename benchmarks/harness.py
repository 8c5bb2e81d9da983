"""Check, then time: every provider is held against a float64 truth, then all take turns.

Words: a *case* is one thing to measure, a *provider* one way to do it, a *task* that way made ready
for the case, a *sample* the time of a few calls of a task divided by the steps they did.
"""

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import device

Values = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        suite, op: where it belongs and what it does.
        mode: "forward" (under no_grad), "backward" (alone, on a kept graph), "full" (both), or the
            suite's own word.
        batch_size: B, or the number of lines for data preparation.
        shape: the other sizes, as text.
    """

    suite: str
    op: str
    mode: str
    batch_size: int
    shape: str

    def __str__(self) -> str:
        return f"{self.suite} {self.op} {self.mode} {self.batch_size} ({self.shape})"


@dataclass(frozen=True)
class Task:
    """A provider made ready for a case.

    Attributes:
        run: the work that is timed.
        check: computes (values, truth): what the provider gives and what is right, by name.
        steps: units of work that one call of ``run`` does.
        bytes: what a unit of work cannot but move in memory, where that is what limits it.
    """

    run: Callable[[], Any]
    check: Callable[[], tuple[Values, Values]]
    steps: int = 1
    bytes: int | None = None


Builder = Callable[[Case], Task]


@dataclass(frozen=True)
class Timing:
    """Microseconds per unit of work over ``repeats`` samples of ``calls`` calls each."""

    median_us: float
    q20_us: float
    q80_us: float
    min_us: float
    repeats: int
    calls: int


class CheckFailed(Exception):
    """A provider's values are not the case's."""


def check(task: Task, tolerance: float) -> float:
    """The worst error of a task's values; raises CheckFailed where it is above ``tolerance``."""
    values, truth = task.check()
    if values.keys() != truth.keys():
        raise CheckFailed(f"gives {sorted(values)}, expected {sorted(truth)}")
    errors = {name: worst_error(values[name], truth[name]) for name in truth}
    name = max(errors, key=errors.__getitem__)
    if not errors[name] <= tolerance:
        raise CheckFailed(f"{name} has error {errors[name]:.1e}, at most {tolerance:.0e} passes")
    return errors[name]


def worst_error(value: torch.Tensor, truth: torch.Tensor) -> float:
    """Largest difference over the largest magnitude in ``truth``; inf if not comparable."""
    if value.shape != truth.shape or not bool(torch.isfinite(value).all()):
        return float("inf")
    if truth.numel() == 0:
        return 0.0
    scale = truth.double().abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float((value.double() - truth.double()).abs().max() / scale)


def measure(
    tasks: Mapping[str, Task],
    repeats: int,
    sample_seconds: float,
    clock: Callable[[], float] = device.clock,
) -> dict[str, Timing]:
    """Time tasks side by side: one sample of each in turn, so that drift hits all of them alike.

    Args:
        tasks: by provider.
        repeats: samples of each.
        sample_seconds: shortest sample; the number of calls in a sample grows to fill it.
    """
    calls = {name: _calls_per_sample(task, sample_seconds, clock) for name, task in tasks.items()}
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    gc.collect()
    gc.disable()
    try:
        for name in _turns(tasks, repeats):
            tasks[name].run()  # untimed: the neighbour's idle threads stop spinning meanwhile
            seconds = _seconds(tasks[name], calls[name], clock)
            samples[name].append(seconds * 1e6 / (calls[name] * tasks[name].steps))
    finally:
        gc.enable()
    return {name: summarise(samples[name], calls[name]) for name in tasks}


def measure_whole(
    tasks: Mapping[str, Task], repeats: int, sample_seconds: float, most: int
) -> dict[str, Timing]:
    """As `measure`, for work too long to be repeated at will.

    A sample is one call, which returns how many seconds count; there are ``most`` of each or fewer.
    """
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    for name in _turns(tasks, min(repeats, most)):
        samples[name].append(tasks[name].run() * 1e6 / tasks[name].steps)
    return {name: summarise(samples[name], 1) for name in tasks}


def _turns(tasks: Mapping[str, Task], repeats: int) -> Iterator[str]:
    """Every other round runs backwards: nobody always follows the same neighbour."""
    for repeat in range(repeats):
        yield from list(tasks)[:: -1 if repeat % 2 else 1]


def summarise(samples: list[float], calls: int) -> Timing:
    """Median, 20% and 80% quantile (linear interpolation) and minimum of samples."""
    q20, median, q80 = (float(q) for q in np.quantile(samples, (0.2, 0.5, 0.8)))
    return Timing(median, q20, q80, min(samples), len(samples), calls)


def _calls_per_sample(task: Task, sample_seconds: float, clock: Callable[[], float]) -> int:
    """Calls that fill a sample, found by doubling; also the warm-up."""
    calls = 1
    task.run()
    while (seconds := _seconds(task, calls, clock)) < sample_seconds / 2:
        calls *= 2
    return max(calls, round(calls * sample_seconds / seconds))


def _seconds(task: Task, calls: int, clock: Callable[[], float]) -> float:
    run = task.run
    start = clock()
    for _ in range(calls):
        run()
    return clock() - start


@dataclass(frozen=True)
class Suite:
    """A family of cases.

    Attributes:
        cases: the cases for the given batch sizes and modes.
        builders: what each provider that can do the case does, by provider.
        tolerance: largest error that passes the check, see ``worst_error``.
        measure: times the tasks of a case; called like `measure`.
        by_default: whether it runs where nobody names a suite.
        on_gpu: whether it can measure a GPU, where it then runs by default.
    """

    name: str
    cases: Callable[[list[int], list[str]], list[Case]]
    builders: Callable[[Case], dict[str, Builder]]
    tolerance: float
    measure: Callable[[Mapping[str, Task], int, float], dict[str, Timing]] = measure
    by_default: bool = True
    on_gpu: bool = False
