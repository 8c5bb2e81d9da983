"""`pymlp train`: train a model, or go on with a run that was interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from types import FrameType
from typing import Any

import click
import torch
from click.core import ParameterSource

from pymlp import sources
from pymlp.callbacks import Callback
from pymlp.commands import profile as phase_times
from pymlp.commands import run_names, train_result
from pymlp.commands.common import data_of, given, json_option, note, open_run, shown, threads_option
from pymlp.commands.data_options import (
    OnceOption,
    data_options,
    file_options,
    load_data,
    source_option,
)
from pymlp.commands.train_options import MODEL_OPTIONS, TRAIN_OPTIONS, add_options
from pymlp.data import Dataset
from pymlp.model import INITS
from pymlp.presets import PRESETS
from pymlp.progress import ProgressBar
from pymlp.run_config import RunConfig
from pymlp.rundir import RunDirectory, check_vacant
from pymlp.stepper import DivergedError
from pymlp.trainer import Trainer

# Parameters that may be given, as before or anew, when a run is resumed.
_RESUMABLE = {
    *("resume", "out", "steps", "device", "threads", "profile", "as_json"),
    *("source", "dev", "test"),  # the same data, from another place
}


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
    cls=OnceOption,
    type=click.Choice(list(PRESETS)),
    default="lecture",
    show_default=True,
    help="Settings that the options below change.",
)
@add_options(MODEL_OPTIONS | TRAIN_OPTIONS)
@click.option(
    "--init-from",
    cls=OnceOption,
    metavar="RUN",
    callback=open_run,
    help="Begin with the last parameters of another run, and by default with its data and sizes; "
    "the vocabulary must be the same.",
)
@click.option(
    "--init",
    cls=OnceOption,
    type=click.Choice(INITS),
    help="First parameters: torch.nn's, the lecture's, scaled so that all tokens are equally "
    "likely, or the same with each token as likely as it is frequent.  [default: the preset's]",
)
@threads_option
@click.option(
    "--dtype",
    cls=OnceOption,
    type=click.Choice(["float32", "float64"]),
    help="Of the parameters. In float64 the engines agree step by step; in float32 the lecture's "
    "initial rates amplify rounding.  [default: float32, or that of --init-from]",
)
@click.option(
    "--device", cls=OnceOption, default="cpu", show_default=True, help="cpu, cuda or cuda:N."
)
@click.option(
    "--out",
    cls=OnceOption,
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
    init_from: RunDirectory | None,
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
    with ProgressBar() as progress:
        if resume:
            _check_resumable(ctx)
            path = out or run_names.newest(preset)
            files = {name: chosen.get(name) for name in ("dev", "test")}
            data = None
            if source is not None or any(files.values()):
                data = data_of(RunDirectory.open(path), source, **files)
            trainer = Trainer.resume(
                path, data, callbacks=[progress], steps=chosen.get("steps"), device=place
            )
        else:
            if out is not None:
                _check_vacant(out, overwrite)
            note(train_result.told_settings(preset, chosen, init_from))
            trainer = _new_trainer(source, preset, chosen, init_from, place, progress)
        if profile:
            phase_times.begin(trainer)
        with _stopping_on_signals(trainer) as received:
            if not resume:
                path = _save(trainer, out, preset, overwrite)
            train_result.introduce(trainer, path)
            _fit(trainer, path)
    if profile:
        phase_times.show(trainer)
    if received and trainer.step < trainer.config.steps:
        note(
            f"Stopped at step {trainer.step:,} of {trainer.config.steps:,}. "
            f"Go on with: pymlp train --resume --out {shown(path)}"
        )
        ctx.exit(128 + received[0])
    train_result.report(trainer, RunDirectory.open(path), as_json)


def _new_trainer(
    source: str | None,
    preset: str,
    chosen: Mapping[str, Any],
    init_from: RunDirectory | None,
    device: torch.device,
    progress: Callback,
) -> Trainer:
    if init_from is not None:
        if source is None:
            source, files = _source_of(init_from)
            chosen = {**files, **chosen}
        chosen = {**_settings_of(init_from, chosen), **chosen}
    settings = {**PRESETS[preset].model, **chosen}
    known = {field.name for field in fields(RunConfig)}
    try:
        config = RunConfig.from_preset(
            preset, **{name: x for name, x in settings.items() if name in known}
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    data = load_data(source, PRESETS[preset].data, chosen, settings["block_size"])
    if data.n_empty:
        note(f"{data.n_empty:,} empty lines skipped")
    callbacks = [train_result.FirstLossHint(), progress]
    if init_from is None:
        train_result.hint_at_first_parameters(config)
        return config.trainer(data, callbacks, device=device)
    _check_vocabulary(init_from, data, source or sources.BUNDLED)
    dtype = getattr(torch, chosen["dtype"]) if "dtype" in chosen else None
    model = init_from.model().to(device, dtype)
    return Trainer(model, data, config.train_config(), callbacks)


def _source_of(run: RunDirectory) -> tuple[str | None, dict[str, str]]:
    """The file of a run's data, None for the bundled names, and the files of dev and test."""
    files = sources.files_of(run.config()["data"])
    if "source" not in files:
        raise click.ClickException(
            f"the run in {shown(run.path)} does not say where its data come from: give --data"
        )
    source = files.pop("source")
    return None if source == sources.BUNDLED else source, files


def _settings_of(run: RunDirectory, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a run's model, which must not be chosen otherwise, and the way of its data."""
    if "init" in chosen:
        raise click.UsageError("--init and --init-from exclude each other")
    sizes = asdict(run.model_config())
    del sizes["vocab_size"]
    for name, size in sizes.items():
        if chosen.get(name, size) != size:
            flag = name.replace("_", "-")
            raise click.UsageError(
                f"--{flag} cannot be changed by --init-from: the model in {shown(run.path)} has "
                f"{name} {size}, not {chosen[name]}"
            )
    return given(asdict(sources.config_of(run.config()["data"]))) | sizes


def _check_vocabulary(run: RunDirectory, data: Dataset, source: str) -> None:
    ours, theirs = set(data.vocabulary.tokens), set(run.vocabulary().tokens)
    if data.vocabulary != run.vocabulary():
        differing = ", ".join(map(repr, sorted(ours ^ theirs)[:3])) or "their order or kind"
        raise click.ClickException(
            f"--init-from {shown(run.path)}: its vocabulary of {len(theirs):,} tokens is not that "
            f"of {source}, of {len(ours):,} tokens (differing: {differing}): train a new model"
        )


def _check_vacant(out: Path, overwrite: bool) -> None:
    try:
        check_vacant(out, overwrite=overwrite)
    except FileExistsError as error:
        raise click.ClickException(f"{error} (--resume, --overwrite, --out)") from error


def _save(trainer: Trainer, out: Path | None, preset: str, overwrite: bool) -> Path:
    """Make the run directory ``out``, or the first of the preset that nobody else has."""
    while True:
        path = out or run_names.next_free(preset)
        try:
            trainer.save(path, overwrite=overwrite)
            return path
        except FileExistsError:
            if out is not None or not path.exists():
                raise


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
