"""What `pymlp train` says before and after."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pymlp.commands import plot, sample
from pymlp.commands import profile as phase_times
from pymlp.commands.common import note, print_json, say, shown
from pymlp.history import Evaluation
from pymlp.rundir import RunDirectory
from pymlp.sampling import membership
from pymlp.sampling import sample as draw
from pymlp.trainer import Trainer

_SAMPLES = 20


def introduce(trainer: Trainer, out: Path) -> None:
    """Say on stderr what is about to be trained."""
    counts = " / ".join(f"{count:,}" for count in trainer.data.sizes.values())
    note(
        f"{counts} examples (train / dev / test), {len(trainer.data.vocabulary)} tokens, "
        f"{_n_params(trainer):,} parameters, engine {trainer.engine.name} "
        f"({trainer.engine_reason}), in {shown(out)}"
    )
    if trainer.step:
        note(f"resumed at step {trainer.step:,}")


def report(trainer: Trainer, run: RunDirectory, as_json: bool) -> None:
    """Leave pictures in the run directory and print the result, with a few new lines."""
    best = trainer.history.best
    if trainer.step < trainer.config.steps and best is not None:
        note(
            f"Stopped early at step {trainer.step:,}: {trainer.config.patience} evaluations found "
            f"no lower dev loss than that of step {best.step:,} (--best uses its parameters)."
        )
    try:
        pictures = [path.name for path in plot.draw(run, trainer.data).values()]
    except ImportError as error:
        pictures = []
        note(str(error))
    if as_json:
        profile = {"profile": phase_times.phases(trainer)} if phase_times.is_on(trainer) else {}
        print_json(_result(trainer, run) | profile)
        return
    history = trainer.history
    say(_final_line(history.evals[-1]))
    if math.isfinite(history.us_per_step):
        say(f"{history.us_per_step:,.0f} microseconds per step")
    data = trainer.data
    lines = draw(run.model(), data.vocabulary, _SAMPLES, across=not data.stream.reset)
    sample.show(lines, list(membership(lines, data)))
    say(f"{shown(run.path)}: {', '.join(['model.safetensors', *pictures])}")


def _final_line(last: Evaluation) -> str:
    """The result as a sentence: the reporter's line of the same evaluation may stand above it."""
    train = "" if math.isnan(last.train) else f"train loss {last.train:.4f}, "
    return f"{train}dev loss {last.dev:.4f} nats per token after {last.step:,} steps"


def _result(trainer: Trainer, run: RunDirectory) -> dict[str, Any]:
    history, config = trainer.history, trainer.config
    last, best = history.evals[-1], history.best
    assert best is not None
    pace = history.us_per_step
    return {
        "steps": config.steps,
        "step": trainer.step,
        "batch_size": config.batch_size,
        "engine": trainer.engine.name,
        "engine_reason": trainer.engine_reason,
        "seed": config.seed,
        "n_params": _n_params(trainer),
        "examples": trainer.data.sizes,
        "train_loss": last.train,
        "dev_loss": last.dev,
        "best_dev_loss": best.dev,
        "best_step": best.step,
        "seconds": history.seconds,
        "us_per_step": pace,
        "out": str(run.path),
    }


def _n_params(trainer: Trainer) -> int:
    return sum(parameter.numel() for parameter in trainer.model.parameters())
