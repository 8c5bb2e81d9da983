"""The options of `pymlp train` that set fields of `MLPConfig` and `TrainConfig`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import click

from pymlp.commands.data_options import OnceOption
from pymlp.config import ENGINES, EVAL_TRAIN, OPTIMIZERS, SCHEDULES, TrainConfig
from pymlp.evaluate import SAMPLE_SIZE
from pymlp.model import MLPConfig
from pymlp.presets import PRESETS

F = TypeVar("F", bound=Callable[..., Any])

_POSITIVE = click.IntRange(min=1)
_COUNT = click.IntRange(min=0)
_RATE = click.FloatRange(min=0.0)
_SHARE = click.FloatRange(0.0, 1.0, max_open=True)

MODEL_OPTIONS: dict[str, tuple[Any, str]] = {
    "block_size": (_POSITIVE, "Tokens of context."),
    "n_embd": (_POSITIVE, "Width of an embedding row."),
    "n_hidden": (_COUNT, "Hidden units; may be 0 with --direct."),
    "direct": (None, "Connections from the embeddings straight to the output."),
}
# The type is None for what is switched on and off.
TRAIN_OPTIONS: dict[str, tuple[Any, str]] = {
    "steps": (
        _POSITIVE,
        "Parameter updates in all; a run that is gone on with trains up to this step.",
    ),
    "batch_size": (_POSITIVE, "Examples in a step."),
    "lr": (click.FloatRange(min=0.0, min_open=True), "Learning rate."),
    "optimizer": (click.Choice(OPTIMIZERS), "As in torch.optim; momentum is SGD with momentum."),
    "momentum": (_SHARE, "For --optimizer momentum."),
    "weight_decay": (_RATE, "[default: torch's: 0 for SGD, 0.01 for AdamW]"),
    "decay_biases": (None, "Whether weight decay pulls at the biases, too."),
    "betas": (click.Tuple([_SHARE, _SHARE]), "Two numbers, for --optimizer adamw."),
    "eps": (click.FloatRange(min=0.0, min_open=True), "For --optimizer adamw."),
    "sparse_embedding": (
        None,
        "Whether a step moves only the rows of the embedding that occur in its batch.",
    ),
    "sampled_softmax": (
        click.IntRange(min=1),
        "Compare targets with so many words of noise in place of the whole vocabulary.",
    ),
    "label_smoothing": (
        click.FloatRange(0.0, 1.0),
        "Share of each target that is spread evenly over the vocabulary.",
    ),
    "z_loss": (_RATE, "Factor of log² Z in what is minimised, for a model that normalises itself."),
    "dropout": (
        _SHARE,
        "Probability that a unit of the input or the hidden layer is left out of a step.",
    ),
    "schedule": (click.Choice(SCHEDULES), "How the learning rate changes."),
    "lr_drop_step": (
        _COUNT,
        "For --schedule step: first step with the lower rate.  [default: half-way]",
    ),
    "lr_drop_factor": (_RATE, "For --schedule step: what the rate is multiplied by."),
    "lr_min": (_RATE, "For --schedule cosine: the rate at the end."),
    "lr_decay": (_RATE, "For --schedule inverse: r of lr / (1 + r t)."),
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
    "eval_train": (
        click.Choice(EVAL_TRAIN),
        f"Evaluate all of train, {SAMPLE_SIZE:,} evenly spaced examples of it, or none.",
    ),
    "patience": (
        _POSITIVE,
        "Evaluations without a lower dev loss after which training stops.  [default: never]",
    ),
    "average": (
        _POSITIVE,
        "Steps that an average of the parameters reaches back, which is then what is evaluated "
        "and used.  [default: no average]",
    ),
    "checkpoint_every": (_COUNT, "Steps between checkpoints; 0 is only at the end."),
    "log_every": (_POSITIVE, "Steps between lines of metrics.jsonl."),
}


def add_options(options: Mapping[str, tuple[Any, str]]) -> Callable[[F], F]:
    """A decorator: the command gets the options, whose parameters are None where not given."""

    def add(command: F) -> F:
        for name, (kind, text) in reversed(list(options.items())):
            flag = "--" + name.replace("_", "-")
            if "[default" not in text:
                text = f"{text}  [default: {_default(name)}]"
            if kind is None:
                command = click.option(f"{flag}/--no-{flag[2:]}", default=None, help=text)(command)
            else:
                command = click.option(flag, cls=OnceOption, type=kind, help=text)(command)
        return command

    return add


def _default(name: str) -> str:
    """The value without the option; where presets differ, that of each."""
    defaults = {f.name: f.default for kind in (MLPConfig, TrainConfig) for f in fields(kind)}
    presets: dict[str, list[str]] = {}
    for preset, settings in PRESETS.items():
        value = (defaults | dict(settings.model) | dict(settings.train))[name]
        text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        presets.setdefault(text, []).append(preset)
    if len(presets) == 1:
        return presets.popitem()[0]
    return ", ".join(f"{value} for {' and '.join(names)}" for value, names in presets.items())
