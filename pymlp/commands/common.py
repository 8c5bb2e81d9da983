"""Code that several commands share: options, output, the data and membership of lines."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import click
import torch

from pymlp import sources
from pymlp.commands.data_options import (
    READABLE,
    F,
    file_options,
    load_data,
    opened,
    source_option,
)
from pymlp.data import Dataset
from pymlp.files import naming
from pymlp.rundir import RunDirectory
from pymlp.text import iterate_lines


def _set_threads(ctx: click.Context, parameter: click.Parameter, value: int | None) -> None:
    if value is not None:
        torch.set_num_threads(value)


# More than any machine has; threads of a much larger number could not all be started.
_MAX_THREADS = 1024

threads_option = click.option(
    "--threads",
    type=click.IntRange(1, _MAX_THREADS),
    callback=_set_threads,
    expose_value=False,
    help=f"Threads to compute with.  [default: torch's choice, here {torch.get_num_threads()}]",
)

# More than fits into any memory: wrong usage, where a smaller number may be too large, too.
MOST = 2**31 - 1
COUNT, POSITIVE = click.IntRange(0, MOST), click.IntRange(1, MOST)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one line of JSON on stdout."
)

context_option = click.option(
    "--context",
    type=click.Choice(["reset", "across"]),
    help="Whether a context begins with its line or runs on from the lines before.  [default: as "
    "the model was trained]",
)

best_option = click.option(
    "--best", is_flag=True, help="Use the parameters with the lowest dev loss, not the last ones."
)


def open_run(
    ctx: click.Context, parameter: click.Parameter, value: str | None
) -> RunDirectory | None:
    """The callback of a parameter that names a run; None where it is not given."""
    try:
        return None if value is None else RunDirectory.open(value)
    except FileNotFoundError as error:
        raise click.BadParameter(str(error)) from error


run_argument = click.argument("run", callback=open_run)


def _read_lines(ctx: click.Context, parameter: click.Parameter, value: str) -> Iterator[str]:
    with opened(value) as file:
        yield from iterate_lines(file)


# Its lines, one after the other, plain or gzip.
text_argument = click.argument(
    "lines",
    metavar="[FILE]",
    type=READABLE,
    default="-",
    callback=_read_lines,
)


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def print_json(result: Mapping[str, Any]) -> None:
    """One line on stdout; numbers that JSON does not have, infinite or not a number, are null."""
    say(json.dumps(_finite(result), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say(message: str) -> None:
    """A line on stdout. The stream is named: in place of one of ASCII, click takes its own."""
    with naming("standard output"):
        click.echo(message, file=sys.stdout)


def note(message: str) -> None:
    """A line on stderr."""
    click.echo(message, file=sys.stderr, err=True)


def shown(path: os.PathLike[str]) -> str:
    """A path as a person would type it: relative where that is shorter."""
    relative = os.path.relpath(path)
    return min(os.fspath(path), relative, key=len)


def run_data_options(command: F) -> F:
    """The options of `data_of`: files with a run's data, where they are not where they were."""
    return source_option(
        "The data that the run was trained on, where they were a pipe or have moved; their digest "
        "is compared.  [default: the file that the run names]"
    )(file_options(command))


def data_of(run: RunDirectory, source: str | None = None, **files: str | None) -> Dataset:
    """The data set that the run was trained on.

    Args:
        run: says how the data are read.
        source: the file to read, ``-`` for standard input; None is the one that the run names.
        files: those of ``dev`` and ``test``, for ``source``.

    Raises:
        OSError, ValueError: they cannot be read, or are others than the run was trained on.
    """
    table, block_size = run.config()["data"], run.model_config().block_size
    chosen = given(files)
    if source is None and not chosen:
        return sources.recall(table, block_size)
    if source is None:
        raise click.UsageError("--dev and --test need --data, which is train")
    data = load_data(source, asdict(sources.config_of(table)), chosen, block_size)
    sources.check(data, table | {"source": source})
    return data


def worded_advice(message: str) -> str:
    """A message of the library with the advice that holds on the command line."""
    return message.replace(sources.PASS_DATA, "give it with --data FILE")


def runs_on(run: RunDirectory, context: str | None) -> bool:
    """Whether contexts run on from line to line: as `context_option` says, or as in training."""
    if context:
        return context == "across"
    config = sources.config_of(run.config()["data"])
    return not config.resets(of_words=bool(run.vocabulary().separator))
