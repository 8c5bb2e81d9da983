"""The messages of `pymlp train` before and after training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pymlp.callbacks import Callback
from pymlp.commands import plot, sample
from pymlp.commands import profile as phase_times
from pymlp.commands.common import note, print_json, say, shown
from pymlp.evaluate import is_sampled
from pymlp.presets import PRESETS
from pymlp.run_config import RunConfig
from pymlp.rundir import RunDirectory
from pymlp.sampling import membership
from pymlp.sampling import sample as draw
from pymlp.trainer import Trainer

_SAMPLES = 20

# Vocabularies up to the lecture's kind of size recover within the first hundreds of steps.
_FEW_TOKENS = 256


def told_settings(preset: str, chosen: Mapping[str, Any], init_from: RunDirectory | None) -> str:
    """The settings that a preset brings, and those that were changed."""
    base = PRESETS[preset]
    brought = _listed({**base.model, "init": base.init, **base.train, **base.data})
    changed = _listed(chosen) or "nothing"
    start = "" if init_from is None else f"; parameters, sizes and data of {shown(init_from.path)}"
    return f"preset {preset}: {brought}; changed: {changed}{start}"


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_told(value)}" for name, value in settings.items())


def _told(value: Any) -> str:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 10_000
    return f"{value:,}" if is_count else str(value)


def hint_at_first_parameters(config: RunConfig) -> None:
    """Say on stderr that AdamW does not go well with the lecture's first parameters."""
    if config.init == "lecture" and config.optimizer == "adamw":
        note(
            "hint: init lecture begins far from even predictions, and AdamW's small steps take "
            "long to leave there: --init scaled ends lower"
        )


class FirstLossHint(Callback):
    """Says on stderr that a run of many tokens begins far above an even guess."""

    def on_steps(self, trainer: Trainer, losses: Tensor) -> None:
        """Look at the loss of the first step of all."""
        n_tokens = len(trainer.data.vocabulary)
        is_large = n_tokens > _FEW_TOKENS or bool(trainer.data.vocabulary.separator)
        is_exact = trainer.config.sampled_softmax is None
        if trainer.step > len(losses) or not (is_large and is_exact):
            return
        even = math.log(n_tokens)
        if losses[0] > 2 * even:
            note(
                f"hint: the first loss, {losses[0]:.1f}, is far above the {even:.1f} of an even "
                "guess: --init scaled begins there, --preset word-best is for words"
            )


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
    say(_final_line(trainer))
    if math.isfinite(history.us_per_step):
        say(f"{history.us_per_step:,.0f} microseconds per step")
    data = trainer.data
    lines = draw(run.model(), data.vocabulary, _SAMPLES, across=not data.stream.reset)
    sample.show(lines, list(membership(lines, data)))
    say(f"{shown(run.path)}: {', '.join(['model.safetensors', *pictures])}")


def _final_line(trainer: Trainer) -> str:
    """The result as a sentence: the reporter's line of the same evaluation may stand above it."""
    last = trainer.history.evals[-1]
    part = " of a sample" if is_sampled(trainer.data.train, trainer.config.eval_train) else ""
    train = "" if math.isnan(last.train) else f"train loss{part} {last.train:.4f}, "
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
