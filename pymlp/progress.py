"""The progress of training for people: a line rewritten in place, or plain lines in a file."""

from __future__ import annotations

import math
import shutil
import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

import torch
from torch import Tensor

from pymlp.callbacks import Callback
from pymlp.evaluate import is_sampled
from pymlp.history import Evaluation

if TYPE_CHECKING:
    from pymlp.many import Progress
    from pymlp.trainer import Trainer

# Seconds between two looks of the line that is rewritten, and between plain lines.
_LIVE_SECONDS = 0.1
_QUIET_SECONDS = 10.0

_CELLS = 20


class _Screen:
    """Shows the latest state, not too often, and lines that stay above it.

    Args:
        file: written to; None is ``sys.stderr``, and nothing where that is closed.

    Attributes:
        is_live: the state is one line that is rewritten, as on a terminal or in a notebook; else
            every state is a line of its own.
    """

    def __init__(self, file: TextIO | None) -> None:
        self._file: TextIO | None = sys.stderr if file is None else file
        # A notebook's stream is no terminal, but does as a terminal does.
        self.is_live = self._file is not None and (
            self._file.isatty() or type(self._file).__module__.startswith("ipykernel")
        )
        self._period = _LIVE_SECONDS if self.is_live else _QUIET_SECONDS
        self._width = 0
        self._shown_at = -math.inf

    def wait(self, now: float) -> None:
        """Count the time to the next state from now on."""
        self._shown_at = now

    def is_due(self, now: float) -> bool:
        """Whether the last state was shown long enough ago."""
        return now - self._shown_at >= self._period

    def show(self, state: str, now: float) -> None:
        """Show a state in place of the last one."""
        self._shown_at = now
        if not self.is_live:
            self.print(state)
            return
        state = state[: shutil.get_terminal_size().columns - 1]
        self._write("\r" + state.ljust(self._width))
        self._width = len(state)

    def print(self, line: str) -> None:
        """Print a line that stays."""
        if self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0
        self._write(line + "\n")

    def end(self) -> None:
        """Leave the last state where it stands."""
        if self._width:
            self._write("\n")
            self._width = 0

    def _write(self, text: str) -> None:
        if self._file is not None:
            self._file.write(text)
            self._file.flush()


class ProgressBar(Callback):
    """A callback of `Trainer` that shows how far a run is, and its evaluations.

    On a terminal or in a notebook a bar is rewritten in place; in a file or pipe a line comes every
    ten seconds. As a context manager it also ends the line after an error.

    Args:
        file: written to; None is ``sys.stderr``.

    Example:
        >>> pymlp.Trainer(model, data, config, [pymlp.ProgressBar()]).fit()
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._screen = _Screen(file)
        self._start: tuple[float, int] | None = None  # time and step
        self._losses: list[Tensor] = []
        self._evaluating: tuple[int, str] | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the screen tidy, after an error too."""
        self._screen.end()

    def on_steps(self, trainer: Trainer, losses: Tensor) -> None:
        """Show the mean loss since the last time, if that is long ago."""
        now = time.monotonic()
        self._losses.append(losses)
        if self._start is None:  # the time that the first steps took is not known
            self._start = now, trainer.step
            self._screen.wait(now)
        elif self._screen.is_due(now):
            self._show(trainer, now)

    def on_eval_progress(self, trainer: Trainer, split: str, done: int, total: int) -> None:
        """Show how far an evaluation is, if it takes long."""
        now = time.monotonic()
        if self._evaluating != (trainer.step, split):
            self._evaluating = trainer.step, split
            self._screen.wait(now)
        elif done < total and self._screen.is_due(now):
            self._screen.show(f"evaluating {split}: {done:,} of {total:,} examples", now)

    def on_eval(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """Print the losses."""
        self._screen.print(evaluation_line(trainer, evaluation))

    def on_end(self, trainer: Trainer) -> None:
        """Leave the last state."""
        if self._screen.is_live and self._losses:
            self._show(trainer, time.monotonic())
        self._screen.end()
        self._start, self._losses = None, []

    def _show(self, trainer: Trainer, now: float) -> None:
        assert self._start is not None
        seconds, steps = now - self._start[0], trainer.step - self._start[1]
        loss = torch.cat(self._losses).mean().item()
        self._losses = []
        pace = steps / seconds if seconds > 0 else 0.0
        told = f"loss {loss:.4f}  {pace:,.{pace < 10:d}f} steps/s"
        if self._screen.is_live:
            total = trainer.config.steps
            state = f"{_bar(trainer.step, total)}  {told}{_left(total - trainer.step, pace)}"
        else:
            state = f"step {trainer.step:>8,}  {told}"
        self._screen.show(state, now)


class ModelsBar(_Screen):
    """A ``progress`` of `train_many` that shows how far the models are.

    Args:
        n_models: number of models in all.
        file: written to; None is ``sys.stderr``.
    """

    def __init__(self, n_models: int, file: TextIO | None = None) -> None:
        super().__init__(file)
        self._n_models = n_models
        self._start = time.monotonic()
        self.wait(self._start)

    def __call__(self, progress: Progress) -> None:
        """Show the state, if the last one was shown long enough ago or it is the last."""
        now, ended = time.monotonic(), len(progress.results)
        if not self.is_due(now) and ended < self._n_models:
            return
        pace = progress.step / max(now - self._start, 1e-9)
        models = f"{ended:,} of {self._n_models:,} models ended"
        left = _left(progress.steps - progress.step, pace) if ended < self._n_models else ""
        self.show(f"{_bar(progress.step, progress.steps)} steps  {models}{left}", now)


def evaluation_line(trainer: Trainer, evaluation: Evaluation) -> str:
    """An evaluation for the screen."""
    step, train, dev = evaluation
    sample = " (sample)" if is_sampled(trainer.data.train, trainer.config.eval_train) else ""
    shown = "" if math.isnan(train) else f"train loss{sample} {train:.4f}  "
    return f"step {step:>8,}  {shown}dev loss {dev:.4f}"


def _bar(done: int, total: int) -> str:
    cells = _CELLS * done // total
    return f"[{'#' * cells}{'.' * (_CELLS - cells)}] {done:,}/{total:,}"


def _left(steps: int, pace: float) -> str:
    if steps <= 0 or pace <= 0:
        return ""
    seconds = steps / pace
    return f"  {timedelta(seconds=round(seconds))} left" if seconds < 1e9 else ""
