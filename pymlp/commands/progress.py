"""How a training run looks on the screen: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from torch import Tensor

from pymlp.callbacks import Callback
from pymlp.history import Evaluation
from pymlp.trainer import Trainer

# Seconds between plain lines, evaluations aside.
_QUIET_SECONDS = 10.0


class Reporter(Callback):
    """A callback with something on the screen for as long as it is entered."""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the screen tidy, after an error too."""


class Lines(Reporter):
    """Plain lines: every evaluation, and now and then the mean loss since the last such line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start: float | None = None
        self._losses: list[Tensor] = []

    def on_steps(self, trainer: Trainer, losses: Tensor) -> None:
        now = time.monotonic()
        if self._start is None:  # how long the first steps took is not known
            self._start = now
            return
        self._losses.append(losses)
        elapsed = now - self._start
        if elapsed >= _QUIET_SECONDS:
            window = torch.cat(self._losses)
            pace = len(window) / elapsed
            loss = window.mean().item()
            self._print(
                f"step {trainer.step:>8,}  loss {loss:.4f}  {pace:,.{pace < 10:d}f} steps/s"
            )
            self._start, self._losses = now, []

    def on_eval(self, trainer: Trainer, evaluation: Evaluation) -> None:
        self._print(evaluation_line(evaluation))

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)


class Bar(Reporter):
    """A bar with loss and steps per second; evaluations scroll by above it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            _Pace(),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=5,
            expand=True,
        )
        self._task: TaskID | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def on_steps(self, trainer: Trainer, losses: Tensor) -> None:
        loss = losses.mean().item()
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task(
                "", total=trainer.config.steps, completed=trainer.step, loss=loss
            )
        self._progress.update(self._task, completed=trainer.step, loss=loss)

    def on_eval(self, trainer: Trainer, evaluation: Evaluation) -> None:
        self._progress.console.print(evaluation_line(evaluation), highlight=False)

    def on_end(self, trainer: Trainer) -> None:
        self._progress.stop()


class _Pace(ProgressColumn):
    def render(self, task: Task) -> Text:
        pace = task.finished_speed or task.speed
        return Text("" if pace is None else _pace(pace))


def _pace(steps_per_second: float) -> str:
    digits = 1 if steps_per_second < 10 else 0
    return f"{steps_per_second:,.{digits}f} steps/s"


def reporter() -> Reporter:
    """What suits stderr: a bar on a terminal, lines in a file or pipe."""
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(console)


def evaluation_line(evaluation: Evaluation) -> str:
    """An evaluation for the screen."""
    step, train, dev = evaluation
    shown = "" if math.isnan(train) else f"train loss {train:.4f}  "
    return f"step {step:>8,}  {shown}dev loss {dev:.4f}"
