"""The time that each phase of a step took, for `pymlp train --profile`."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from pymlp.native import NativeEngine
from pymlp.trainer import Trainer


def begin(trainer: Trainer) -> None:
    """Make the native engine measure its phases; another engine is wrong usage."""
    engine = trainer.engine
    if not isinstance(engine, NativeEngine):
        raise click.UsageError(
            f"--profile is for --engine native on the CPU, this run has engine {engine.name} "
            f"({trainer.engine_reason})"
        )
    engine.profiling = True


def is_on(trainer: Trainer) -> bool:
    """Whether `begin` was called."""
    return isinstance(trainer.engine, NativeEngine) and trainer.engine.profiling


def phases(trainer: Trainer) -> dict[str, float]:
    """Microseconds per step of each phase, longest first; empty before the first step.

    "other" is what lies between the phases: the draw of the batches, Python, the start of threads.
    """
    history, engine = trainer.history, trainer.engine
    assert isinstance(engine, NativeEngine)
    if not history.seconds:
        return {}
    times = engine.profile
    times["other"] = history.seconds - sum(times.values())
    per_step = history.us_per_step / history.seconds
    return {
        name: seconds * per_step
        for name, seconds in sorted(times.items(), key=lambda item: -item[1])
    }


def show(trainer: Trainer) -> None:
    """The phases as a table on stderr; nothing before the first step."""
    times = phases(trainer)
    if not times:
        return
    table = Table(title=f"a step, {sum(times.values()):,.1f} microseconds")
    table.add_column("phase")
    for name in ("microseconds", "share"):
        table.add_column(name, justify="right")
    for name, time in times.items():
        table.add_row(name, f"{time:,.2f}", f"{time / sum(times.values()):.1%}")
    Console(stderr=True).print(table)
