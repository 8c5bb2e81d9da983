"""Published figures: a results file to the table of README.md and its picture.

``python -m benchmarks.report FILE.json [--readme README.md] [--plot docs/benchmarks.png]``
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from . import plot, results
from .providers import LABELS
from .results import Report, Result
from .table import by_case, mebibytes, number, providers

BEGIN = "<!-- benchmarks:begin -->"
END = "<!-- benchmarks:end -->"


def main(argv: list[str] | None = None) -> int:
    """Write what was asked for, or print the Markdown; 0, or 1 where that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", type=Path, metavar="FILE.json")
    parser.add_argument("--readme", type=Path, help=f"replace what is between {BEGIN} and {END}")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="speed of a training step")
    chosen = parser.parse_args(argv)
    try:
        report = _load(chosen.results)
        if chosen.readme is not None:
            text = insert(chosen.readme.read_text(encoding="utf-8"), markdown(report))
            results.write(chosen.readme, text.encode())
        if chosen.plot is not None:
            results.write(chosen.plot, plot.png(report))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if chosen.readme is None and chosen.plot is None:
        print(markdown(report))
    return 0


def _load(path: Path) -> Report:
    report = results.load(path)
    if report.failures:
        raise ValueError(f"{path}: a run with failures is not published: {report.failures[0]}")
    return report


def insert(text: str, block: str) -> str:
    """``text`` with ``block`` between the two markers.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected one {BEGIN} and, after it, one {END}")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    return f"{head}{BEGIN}\n{block}\n{END}{tail}"


def markdown(report: Report) -> str:
    """The machine, then the tables: steps, operators, memory, data preparation."""
    rows = report.rows

    def of(suite: str) -> list[Result]:
        return [row for row in rows if row.suite == suite]

    full = [row for row in of("ops") if row.mode == "full"]
    words = [row for row in of("words") if row.op == "sgd"]
    others = [row for row in rows if row.suite != "words"]
    tables = [
        ("One training step, microseconds", of("step"), _time),
        ("The whole training loop, microseconds per step", of("run"), _time),
        ("The same over words, microseconds per step", words, _time),
        ("Its peak memory on top of the inputs, MiB", _measured(words), _memory),
        ("Training until the dev loss is below a target, seconds", of("dev-loss"), _seconds),
        ("Eight models, microseconds per step of any of them", of("many"), _time),
        ("Operators, forward and backward, microseconds", full, _time),
        ("Data preparation, all lines, microseconds", of("data"), _time),
        ("Loss over all training examples, microseconds", of("eval"), _time),
        ("Names drawn, microseconds each", of("sample"), _time),
        ("Lines scored, microseconds a token", of("score"), _time),
        ("Peak memory on top of the inputs, largest batch, MiB", _largest(others), _memory),
    ]
    parts = [_table(title, chosen, figure) for title, chosen, figure in tables if chosen]
    return "\n\n".join([*parts, _machine(report)])


def _measured(rows: list[Result]) -> list[Result]:
    return [row for row in rows if row.peak_bytes is not None]


def _largest(rows: list[Result]) -> list[Result]:
    measured = _measured(rows)
    largest = max((row.batch_size for row in measured), default=0)
    return [row for row in measured if row.batch_size == largest]


# A figure to compare, the lower the better, and how it reads.
Figure = Callable[[Result], tuple[float, str]]


def _time(row: Result, unit: float = 1.0) -> tuple[float, str]:
    time = number(row.median_us / unit)
    if row.speedup is None or row.provider == "eager":
        return row.median_us, time
    return row.median_us, f"{time} ({number(row.speedup)}x)"


def _seconds(row: Result) -> tuple[float, str]:
    return _time(row, unit=1e6)


def _memory(row: Result) -> tuple[float, str]:
    return mebibytes(row), number(mebibytes(row))


def _table(title: str, rows: list[Result], figure: Figure) -> str:
    names = providers(rows)
    head = [title, "B", *(LABELS[name] for name in names)]
    lines = [head, ["---", *["--:"] * (len(names) + 1)]]
    for case in by_case(rows):
        first = next(iter(case.values()))
        figures = {name: figure(row) for name, row in case.items()}
        best = min(figures, key=lambda name: figures[name][0])
        cells = [_cell(figures.get(name), name == best) for name in names]
        lines.append([f"{first.op} ({first.shape})", f"{first.batch_size:,}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(figure: tuple[float, str] | None, best: bool) -> str:
    if figure is None:
        return ""
    return f"**{figure[1]}**" if best else figure[1]


def _machine(report: Report) -> str:
    machine = report.machine
    jax = f", JAX {machine.jax}" if machine.jax else ""
    commit = f", commit {machine.commit[:12]}" if machine.commit else ""
    return (
        f"Medians; in brackets the speed relative to eager, in bold the best. {machine.cpu}, "
        f"{machine.threads} threads on {machine.cores} cores, {machine.isa}; "
        f"PyTorch {machine.torch}{jax}, Python {machine.python}, pymlp {machine.pymlp}{commit}, "
        f"{machine.date[:10]}."
    )


if __name__ == "__main__":
    sys.exit(main())
