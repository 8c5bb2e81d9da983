"""The picture of README.md: how much faster than eager PyTorch each provider steps."""

import io

from .providers import LABELS
from .results import Report, Result
from .table import by_case, number, providers

# Legible on white and on black; the background stays transparent.
INK = "#7d8590"
COLOURS = {"eager": "#9aa0a6", "compile": "#e69f00", "jax": "#56b4e9", "pymlp": "#d55e00"}


def png(report: Report) -> bytes:
    """Bars of speed relative to eager by batch size, microseconds per step written on them.

    Raises:
        ValueError: the report has no rows of suite `step` with eager among them.
    """
    from matplotlib.figure import Figure

    rows = [row for row in report.rows if row.suite == "step" and row.speedup is not None]
    if not rows:
        raise ValueError("a plot needs rows of suite `step`, eager's among them")
    figure = Figure(figsize=(9, 3.8), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    for name in providers(rows):
        _bars(axes, by_case(rows), name, providers(rows))
    _dress(axes, by_case(rows))
    figure.legend(
        loc="outside lower center", ncols=len(COLOURS), frameon=False, labelcolor=INK, fontsize=8.5
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()


def _bars(axes, cases: list[dict[str, Result]], name: str, names: list[str]) -> None:
    width = 0.84 / len(names)
    offset = (names.index(name) - (len(names) - 1) / 2) * width
    places = [place for place, case in enumerate(cases) if name in case]
    rows = [case[name] for case in cases if name in case]
    bars = axes.bar(
        [place + offset for place in places],
        [row.speedup for row in rows],
        width * 0.92,
        color=COLOURS[name],
        label=LABELS[name],
    )
    labels = [_duration(row.median_us) for row in rows]
    axes.bar_label(bars, labels, padding=2, fontsize=7, color=INK)


def _dress(axes, cases: list[dict[str, Result]]) -> None:
    batch_sizes = [next(iter(case.values())).batch_size for case in cases]
    axes.set_xticks(range(len(cases)), [f"B = {batch_size:,}" for batch_size in batch_sizes])
    axes.set_title(
        "Training step: speed relative to PyTorch eager, time per step", color=INK, fontsize=10
    )
    axes.tick_params(colors=INK, length=0)
    axes.yaxis.set_major_formatter("{x:g}x")
    axes.margins(x=0.02, y=0.08)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)


def _duration(microseconds: float) -> str:
    if microseconds < 1000:
        return f"{number(microseconds)} µs"
    return f"{number(microseconds / 1000)} ms"
