"""Carry out a list of cases: make ready, check, time, measure memory."""

import time
from dataclasses import dataclass

from . import data, dev_loss, device, eval, machine, many, ops, sample, score, step, training, words
from .harness import Builder, Case, Suite, Task, Timing, check
from .memory import Meter, device_peak
from .results import Result

SUITES: dict[str, Suite] = {
    module.SUITE.name: module.SUITE
    for module in (ops, words, step, training, dev_loss, many, data, eval, sample, score)
}
MODES = ops.MODES

# Modes whose peak memory is measured: a whole pass; its parts need no more.
MEMORY_MODES = ("full", "step")


@dataclass(frozen=True)
class Options:
    """How to measure: providers wanted, samples of each, their shortest length, memory or not.

    The meter is for the CPU; on a GPU torch's allocator knows.
    """

    providers: tuple[str, ...]
    repeats: int
    sample_seconds: float
    meter: Meter | None


def builder(case: Case, provider: str) -> Builder:
    """The builder of ``provider`` for a case of the suites; picklable, for the memory process."""
    return SUITES[case.suite].builders(case)[provider]


def run_case(case: Case, suite: Suite, options: Options) -> tuple[list[Result], list[str]]:
    """Results of one case, and a message for every provider that failed, which is not timed."""
    tasks, errors, failures = _prepare(case, suite, options)
    before, start = machine.other_cpu_seconds(), time.perf_counter()
    try:
        timings = suite.measure(tasks, options.repeats, options.sample_seconds)
    except RuntimeError as error:
        return [], [*failures, f"{case}: {error}"]
    others = machine.other_cores(before, time.perf_counter() - start)
    peaks: dict[str, int | None] = {}
    for provider in tasks:
        try:
            peaks[provider] = _peak(case, provider, options)
        except RuntimeError as error:
            failures.append(f"{case} {provider}: {error}")
    rows = [
        Result(
            **vars(case),
            provider=name,
            **vars(timings[name]),
            speedup=_speedup(timings, name),
            peak_bytes=peaks.get(name),
            max_error=errors[name],
            others=others,
            bytes=tasks[name].bytes,
        )
        for name in tasks
    ]
    return rows, failures


def _prepare(
    case: Case, suite: Suite, options: Options
) -> tuple[dict[str, Task], dict[str, float], list[str]]:
    tasks, errors, failures = {}, {}, []
    for provider, build in suite.builders(case).items():
        if provider not in options.providers:
            continue
        # Whatever goes wrong inside one provider is that provider's failure; the others go on.
        try:
            task = build(case)
            errors[provider] = check(task, suite.tolerance)
            tasks[provider] = task
        except Exception as error:
            failures.append(f"{case} {provider}: {type(error).__name__}: {_first_line(error)}")
    return tasks, errors, failures


def _peak(case: Case, provider: str, options: Options) -> int | None:
    if case.mode not in MEMORY_MODES:
        return None
    if device.is_gpu():
        return device_peak(builder(case, provider), case, provider)
    if options.meter is None:
        return None
    return options.meter.peak(case, provider)


def _speedup(timings: dict[str, Timing], provider: str) -> float | None:
    eager = timings.get("eager")
    return eager.median_us / timings[provider].median_us if eager else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
