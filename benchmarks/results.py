"""One row per figure, on disk as JSON (machine and rows) and CSV (the machine in every row)."""

import csv
import io
import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .machine import Machine


@dataclass(frozen=True)
class Result:
    """One figure: a provider on a case.

    Attributes:
        suite, op, mode, provider, batch_size, shape: what was measured.
        median_us, q20_us, q80_us, min_us: microseconds per unit of work over the samples.
        repeats, calls: samples, and calls of the task in each.
        speedup: eager's median over this one, both of this run; None where eager did not run.
        peak_bytes: memory needed on top of the inputs, None where it was not measured.
        max_error: worst error of the check before the timing.
        others: cores that other processes kept busy during the timing, None where unknown.
        bytes: memory traffic that a unit of work cannot avoid, None where it does not decide.
    """

    suite: str
    op: str
    mode: str
    provider: str
    batch_size: int
    shape: str
    median_us: float
    q20_us: float
    q80_us: float
    min_us: float
    repeats: int
    calls: int
    speedup: float | None
    peak_bytes: int | None
    max_error: float
    others: float | None
    bytes: int | None = None


@dataclass(frozen=True)
class Report:
    """A run: where it ran, its figures, and one message for each figure it failed to get."""

    machine: Machine
    rows: list[Result]
    failures: list[str]


def save(report: Report, path: Path) -> Path:
    """Write ``path`` as JSON and, beside it, the same rows as CSV, whose path is returned."""
    table = path.with_suffix(".csv")
    write(path, (json.dumps(asdict(report), indent=1) + "\n").encode())
    write(table, to_csv(report).encode())
    return table


def load(path: Path) -> Report:
    """Read a JSON file that ``save`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file.
    """
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
        return Report(
            Machine(**content["machine"]),
            [Result(**row) for row in content["rows"]],
            list(content["failures"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a results file of this version of the benchmarks ({error}); "
            f"make one with `python -m benchmarks --out {path}`"
        ) from error


def to_csv(report: Report) -> str:
    """The rows with a header, each followed by the machine."""
    machine = {f"machine_{key}": value for key, value in asdict(report.machine).items()}
    buffer = io.StringIO()
    columns = [field.name for field in fields(Result)] + list(machine)
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**asdict(row), **machine} for row in report.rows)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    """Replace ``path`` in one move; a reader sees the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
