"""The options of `pymlp train` that set fields of `MLPConfig` and `TrainConfig`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from pymlp.config import ENGINES, OPTIMIZERS, SCHEDULES, TrainConfig
from pymlp.presets import PRESETS

F = TypeVar("F", bound=Callable[..., Any])

_POSITIVE = click.IntRange(min=1)
_COUNT = click.IntRange(min=0)
_RATE = click.FloatRange(min=0.0)

MODEL_OPTIONS: dict[str, tuple[Any, str]] = {
    "block_size": (_POSITIVE, "Tokens of context."),
    "n_embd": (_POSITIVE, "Width of an embedding row."),
    "n_hidden": (_POSITIVE, "Hidden units."),
}
# The type is None for a flag.
TRAIN_OPTIONS: dict[str, tuple[Any, str]] = {
    "steps": (_POSITIVE, "Parameter updates; with --resume, train up to this step instead."),
    "batch_size": (_POSITIVE, "Examples in a step."),
    "lr": (click.FloatRange(min=0.0, min_open=True), "Learning rate."),
    "optimizer": (click.Choice(OPTIMIZERS), "As in torch.optim; momentum is SGD with momentum."),
    "momentum": (click.FloatRange(0.0, 1.0, max_open=True), "For --optimizer momentum."),
    "weight_decay": (_RATE, "[default: torch's: 0 for SGD, 0.01 for AdamW]"),
    "schedule": (click.Choice(SCHEDULES), "How the learning rate changes."),
    "lr_drop_step": (
        _COUNT,
        "For --schedule step: first step with the lower rate.  [default: half-way]",
    ),
    "lr_drop_factor": (_RATE, "For --schedule step: what the rate is multiplied by."),
    "lr_min": (_RATE, "For --schedule cosine: the rate at the end."),
    "warmup_steps": (_COUNT, "For --schedule cosine: linear warm-up."),
    "seed": (_COUNT, "Of the initial parameters and the batches."),
    "max_grad_norm": (
        click.FloatRange(min=0.0, min_open=True),
        "Scale larger gradients down to this norm.  [default: never]",
    ),
    "log_grad_norm": (None, "Also write the mean norm of the gradients to metrics.jsonl."),
    "engine": (
        click.Choice(ENGINES),
        "The whole loop in C++, fused operators under PyTorch autograd, or plain PyTorch to "
        "compare with; auto is the first that applies.",
    ),
    "eval_every": (_COUNT, "Steps between evaluations; 0 is only at the end."),
    "checkpoint_every": (_COUNT, "Steps between checkpoints; 0 is only at the end."),
    "log_every": (_POSITIVE, "Steps between lines of metrics.jsonl."),
}


def configuration_options(command: F) -> F:
    """Add all of them to ``command``; each parameter is None where the option is not given."""
    for name, (kind, text) in reversed((MODEL_OPTIONS | TRAIN_OPTIONS).items()):
        flag = "--" + name.replace("_", "-")
        if kind is None:
            command = click.option(flag, is_flag=True, default=None, help=text)(command)
            continue
        if "[default" not in text:
            text = f"{text}  [default: {_default(name)}]"
        command = click.option(flag, type=kind, help=text)(command)
    return command


def _default(name: str) -> str:
    """The value without the option; where presets differ, that of each."""
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    of_presets = {
        preset: str((defaults | dict(settings.model) | dict(settings.train))[name])
        for preset, settings in PRESETS.items()
    }
    if len(set(of_presets.values())) == 1:
        return of_presets.popitem()[1]
    return ", ".join(f"{value} for {preset}" for preset, value in of_presets.items())
