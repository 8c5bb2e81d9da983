"""The results on a terminal: one line per case, one column per provider."""

import sys
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from .providers import LABELS
from .results import Report, Result


def show(report: Report) -> None:
    """Print median microseconds with the speed relative to eager, then peak memory."""
    # Output that goes elsewhere than to a terminal is not cut to the width of one.
    console = Console(width=None if sys.stdout.isatty() else 160)
    machine = report.machine
    where = machine.gpu or f"{machine.cpu}, {machine.threads} threads, {machine.isa}"
    title = f"{where}, torch {machine.torch}"
    console.print(_table(report.rows, _time, title, "median microseconds (relative to eager)"))
    moving = [row for row in report.rows if row.bytes is not None]
    if moving:
        console.print(_table(moving, _rate, "", "memory traffic that cannot be avoided, GB/s"))
    measured = [row for row in report.rows if row.peak_bytes is not None]
    if measured:
        console.print(_table(measured, _memory, "", "peak memory on top of the inputs, MiB"))


def _table(rows: list[Result], cell: Callable[[Result], str], title: str, caption: str) -> Table:
    table = Table(title=title, caption=caption)
    table.add_column("case", no_wrap=True)
    names = providers(rows)
    for name in ("B", *names):
        table.add_column(name, justify="right")
    for case in by_case(rows):
        first = next(iter(case.values()))
        head = f"{first.suite} {first.op} {first.mode}", f"{first.batch_size:,}"
        table.add_row(*head, *(cell(case[name]) if name in case else "" for name in names))
    return table


def providers(rows: list[Result]) -> list[str]:
    """The providers that have rows, in the order of tables."""
    return [name for name in LABELS if any(row.provider == name for row in rows)]


def by_case(rows: list[Result]) -> list[dict[str, Result]]:
    """Rows of one case together, by provider, in the order they were measured."""
    cases: dict[tuple[str, str, str, int, str], dict[str, Result]] = {}
    for row in rows:
        key = (row.suite, row.op, row.mode, row.batch_size, row.shape)
        cases.setdefault(key, {})[row.provider] = row
    return list(cases.values())


def number(value: float) -> str:
    """Three significant digits or more, never an exponent."""
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


def mebibytes(row: Result) -> float:
    """Peak memory of a row that has one."""
    return (row.peak_bytes or 0) / 2**20


def _time(row: Result) -> str:
    ratio = "" if row.speedup is None else f" ({number(row.speedup)}x)"
    return number(row.median_us) + ratio


def _rate(row: Result) -> str:
    return number((row.bytes or 0) / row.median_us / 1e3)


def _memory(row: Result) -> str:
    return number(mebibytes(row))
