"""The results of many models: a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from typing import Any, overload

from pymlp.model import MLP
from pymlp.run_config import RunConfig
from pymlp.trainer import Trainer

_SHOWN = ("step", "train_loss", "dev_loss", "best_dev_loss", "best_step", "steps_per_second")


@dataclass(frozen=True, eq=False)
class Result:
    """The result of one model.

    Attributes:
        config: what it was made from.
        model: with its parameters after the last step that was done; with their average, where the
            config asks for one.
        engine: the engine that trained it, ``config.engine`` where it came to none.
        step: updates done; of a model that diverged, before its loss was not finite.
        train_loss, dev_loss: at the end, in nats per token; None where there is an ``error``, and
            train also where ``config.eval_train`` leaves it out.
        best_dev_loss, best_step: the lowest dev loss of all evaluations and its step; None before
            the first evaluation.
        seconds: time spent in training steps; evaluations not counted.
        steps_per_second: None before the first step.
        error: why it did not get to its end, such as a loss that is not finite; None if it did.
    """

    config: RunConfig
    model: MLP
    engine: str
    step: int
    train_loss: float | None
    dev_loss: float | None
    best_dev_loss: float | None
    best_step: int | None
    seconds: float
    steps_per_second: float | None
    error: str | None

    @classmethod
    def of(
        cls, config: RunConfig, model: MLP, trainer: Trainer | None, error: str | None
    ) -> Result:
        """The result of a trainer where it is now; ``trainer`` is None for a model without one."""
        if trainer is None:
            return cls(config, model, config.engine, 0, None, None, None, None, 0.0, None, error)
        history = trainer.history
        last = None if error else history.evals[-1]
        best = history.best
        return cls(
            config=config,
            model=model if trainer.average is None else trainer.average,
            engine=trainer.engine.name,
            step=trainer.step,
            train_loss=None if last is None or math.isnan(last.train) else last.train,
            dev_loss=None if last is None else last.dev,
            best_dev_loss=None if best is None else best.dev,
            best_step=None if best is None else best.step,
            seconds=history.seconds,
            steps_per_second=1e6 / history.us_per_step if history.us_per_step > 0 else None,
            error=error,
        )

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in ("engine", *_SHOWN, "error")}
        told = ", ".join(f"{name}={_cell(name, x)}" for name, x in shown.items() if x is not None)
        return f"Result({told})"

    def row(self) -> dict[str, Any]:
        """The config and the figures as one flat dict of plain values.

        ``engine`` is the one that trained the model.
        """
        figures = {f.name: getattr(self, f.name) for f in fields(self)}
        del figures["config"], figures["model"]
        return asdict(self.config) | figures


class Results(Sequence[Result]):
    """Results in the order of their configs; ``print`` and notebooks show them as a table."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._results = tuple(results)

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> Result | Results:
        if isinstance(index, slice):
            return Results(self._results[index])
        return self._results[index]

    def rows(self) -> list[dict[str, Any]]:
        """`Result.row` of each: good for `json.dumps` and data frames."""
        return [result.row() for result in self]

    def by_dev_loss(self) -> Results:
        """The same, lowest dev loss first; those without one last."""
        return Results(sorted(self, key=lambda r: math.inf if r.dev_loss is None else r.dev_loss))

    def __repr__(self) -> str:
        losses = [result.dev_loss for result in self if result.dev_loss is not None]
        lowest = f", lowest dev loss {min(losses):.4f}" if losses else ""
        return f"Results({len(self)} models, {len(losses)} without an error{lowest})"

    def __str__(self) -> str:
        """A table of the figures and of those fields of the configs that are not all alike."""
        lines = self._cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        ends = ["", *(f"  {result.error}" if result.error else "" for result in self)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + end
            for line, end in zip(lines, ends, strict=True)
        )

    def _repr_html_(self) -> str:
        """The same table for notebooks."""
        head, *rows = self._cells()
        lines = [_html_row([*head, "error"], "th")]
        for cells, result in zip(rows, self, strict=True):
            lines.append(_html_row([*cells, result.error or ""], "td"))
        return f"<table>{''.join(lines)}</table>"

    def _cells(self) -> list[list[str]]:
        """The rows of the table, a head first."""
        rows = self.rows()
        varied = [f.name for f in fields(RunConfig) if len({row[f.name] for row in rows}) > 1]
        names = [*varied, *_SHOWN]
        head = [name.replace("_", " ") for name in names]
        return [head, *([_cell(name, row[name]) for name in names] for row in rows)]


def _html_row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if name.endswith("_loss") and abs(value) < 1e9:
        return f"{value:.4f}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
