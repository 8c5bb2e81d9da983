"""`pymlp train`: train a model, or go on with a run that was interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import torch
from click.core import ParameterSource

from pymlp.callbacks import Callback
from pymlp.commands import profile as phase_times
from pymlp.commands import run_names, train_result
from pymlp.commands.common import given, json_option, note, shown, threads_option
from pymlp.commands.data_options import data_options, file_options, load_data, source_option
from pymlp.commands.progress import reporter
from pymlp.commands.train_options import MODEL_OPTIONS, TRAIN_OPTIONS, add_options
from pymlp.config import TrainConfig
from pymlp.model import INITS, MLPConfig, seeded_model
from pymlp.presets import PRESETS
from pymlp.rundir import RunDirectory, check_vacant
from pymlp.stepper import DivergedError
from pymlp.trainer import Trainer

# What may be said again, or anew, when a run is resumed.
_RESUMABLE = {"resume", "out", "steps", "device", "threads", "profile", "as_json"}


@click.command(
    epilog="Example: pymlp train --data names.txt --preset lecture --steps 50000 --out runs/mine"
)
@source_option(
    "Text file, one line for each name or sentence, plain or gzip; or a token file of pymlp "
    "prepare; - reads standard input.  [default: the bundled names]"
)
@file_options
@data_options
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="lecture",
    show_default=True,
    help="Settings that the options below change.",
)
@add_options(MODEL_OPTIONS | TRAIN_OPTIONS)
@click.option(
    "--init",
    type=click.Choice(INITS),
    help="First parameters: torch.nn's, the lecture's, scaled so that all tokens are equally "
    "likely, or the same with each token as likely as it is frequent.  [default: the preset's]",
)
@threads_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Of the parameters. In float64 the engines agree step by step; in float32 the lecture's "
    "initial rates amplify rounding.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run directory.  [default: runs/PRESET, or runs/PRESET-2 and so on when that exists]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in --out, by default the newest one of the preset.",
)
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@click.option(
    "--profile",
    is_flag=True,
    help="Say afterwards on stderr, and in --json, where the microseconds of a step went; for the "
    "native engine.",
)
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    /,
    source: str | None,
    preset: str,
    init: str | None,
    dtype: str,
    device: str,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    profile: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a model; without options, the lecture's on the bundled names.

    Leaves a run directory with the model, the configuration, all losses, checkpoints to resume
    from, and pictures of the loss and the embedding. Ctrl-C saves a checkpoint first.
    """
    chosen = given(options)
    place = _device(device)
    with reporter() as progress:
        if resume:
            _check_resumable(ctx)
            out = out or run_names.newest(preset)
            trainer = Trainer.resume(
                out, callbacks=[progress], steps=chosen.get("steps"), device=place
            )
        else:
            out = out or run_names.next_free(preset)
            _check_vacant(out, overwrite)
            trainer = _new_trainer(source, preset, init, chosen, place, dtype, progress)
        if profile:
            phase_times.begin(trainer)
        with _stopping_on_signals(trainer) as received:
            if not resume:
                trainer.save(out, overwrite=overwrite)
            train_result.introduce(trainer, out)
            _fit(trainer, out)
    if profile:
        phase_times.show(trainer)
    if received and trainer.step < trainer.config.steps:
        note(
            f"Stopped at step {trainer.step:,} of {trainer.config.steps:,}. "
            f"Go on with: pymlp train --resume --out {shown(out)}"
        )
        ctx.exit(128 + received[0])
    train_result.report(trainer, RunDirectory.open(out), as_json)


def _new_trainer(
    source: str | None,
    preset: str,
    init: str | None,
    chosen: Mapping[str, Any],
    device: torch.device,
    dtype: str,
    callback: Callback,
) -> Trainer:
    base = PRESETS[preset]
    sizes = dict(base.model) | {name: chosen[name] for name in MODEL_OPTIONS if name in chosen}
    settings = dict(base.train) | {name: chosen[name] for name in TRAIN_OPTIONS if name in chosen}
    try:
        config = TrainConfig(**settings)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    data = load_data(source, base.data, chosen, sizes["block_size"])
    if data.n_empty:
        note(f"{data.n_empty:,} empty lines skipped")
    init, vocab_size = init or base.init, len(data.vocabulary)
    counts = data.train.counts(vocab_size) if init == "unigram" else None
    model = seeded_model(MLPConfig(vocab_size, **sizes), config.seed, init, counts)
    return Trainer(model.to(device, getattr(torch, dtype)), data, config, [callback])


def _check_vacant(out: Path, overwrite: bool) -> None:
    try:
        check_vacant(out, overwrite=overwrite)
    except FileExistsError as error:
        raise click.ClickException(f"{error} (--resume, --overwrite, --out)") from error


def _check_resumable(ctx: click.Context) -> None:
    """A run goes on as it began: refuse options that would change it."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        given = ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE
        if given and name not in _RESUMABLE and not (name == "preset" and not ctx.params["out"]):
            raise click.UsageError(
                f"{parameter.opts[-1]} cannot be changed by --resume: "
                "a run goes on as its config.toml says"
            )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise click.BadParameter(
            f"{name!r} is not cpu, cuda or cuda:N", param_hint="'--device'"
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise click.BadParameter(f"{name!r} is not cpu, cuda or cuda:N", param_hint="'--device'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise click.ClickException(
            f"--device {name}: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices"
        )
    return device


def _fit(trainer: Trainer, out: Path) -> None:
    try:
        trainer.fit()
    except DivergedError as error:
        raise click.ClickException(
            f"{error}. The last good checkpoint is in {shown(out)}."
        ) from error


@contextmanager
def _stopping_on_signals(trainer: Trainer) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM stop the trainer at the next step; a second one stops at once."""
    received: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(signum)
        trainer.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
