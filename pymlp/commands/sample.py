"""`pymlp sample`: new lines from a run's model, and whether the data have them too."""

from __future__ import annotations

import os
from collections.abc import Mapping

import click

from pymlp.commands.common import (
    COUNT,
    POSITIVE,
    best_option,
    context_option,
    data_of,
    json_option,
    note,
    print_json,
    run_argument,
    run_data_options,
    runs_on,
    say,
    threads_option,
    worded_advice,
)
from pymlp.commands.data_options import OnceOption
from pymlp.rundir import RunDirectory
from pymlp.sampling import SAMPLE_SEED, membership
from pymlp.sampling import sample as draw

# Longer lines are not waited for: the others would wrap around.
_WIDEST = 40

# Bytes of memory that a line takes at least: its ids, its text and where it stands.
_BYTES_A_LINE = 200


@click.command(epilog="Example: pymlp sample runs/lecture -n 10 --temperature 0.8 --prefix mar")
@run_argument
@run_data_options
@click.option("-n", "count", type=COUNT, default=20, show_default=True, help="Lines.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0.0),
    default=1.0,
    show_default=True,
    help="Below 1 prefers likely tokens, above 1 evens them out; 0 takes the likeliest.",
)
@click.option("--top-k", type=POSITIVE, help="Draw from the K likeliest tokens.  [default: all]")
@click.option("--prefix", default="", help="What every line starts with.  [default: nothing]")
@click.option(
    "--seed",
    cls=OnceOption,
    type=click.IntRange(0, 2**63 - 1),
    default=SAMPLE_SEED,
    show_default=True,
    help="Of the draw.",
)
@click.option(
    "--max-length",
    type=POSITIVE,
    default=100,
    show_default=True,
    help="Tokens after which a line is cut.",
)
@context_option
@best_option
@threads_option
@json_option
def sample(
    run: RunDirectory,
    count: int,
    temperature: float,
    top_k: int | None,
    prefix: str,
    seed: int,
    max_length: int,
    context: str | None,
    best: bool,
    as_json: bool,
    **files: str | None,
) -> None:
    """Draw lines from the model in the directory RUN.

    The second column says where a line stands already: in train, dev or test; else it is new.
    """
    _check_memory(count)
    lines = draw(
        run.model(best=best),
        run.vocabulary(),
        count,
        temperature=temperature,
        top_k=top_k,
        prefix=prefix,
        seed=seed,
        max_length=max_length,
        across=runs_on(run, context),
    )
    places = _places(run, lines, files)
    if as_json:
        samples = [{"text": x, "in": place} for x, place in zip(lines, places, strict=True)]
        print_json({"run": str(run.path), "samples": samples})
    else:
        show(lines, places)


def show(lines: list[str], places: list[str | None]) -> None:
    """Print lines and where each stands already."""
    width = min(_WIDEST, max(map(len, lines), default=0))
    for line, place in zip(lines, places, strict=True):
        say(f"{line:<{width}}  {place or ''}".rstrip())


def _check_memory(count: int) -> None:
    """Refuse, before hours of drawing, lines that the machine cannot hold."""
    needed = count * _BYTES_A_LINE
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise click.ClickException(
            f"not enough memory: {count:,} lines need {needed / 2**30:,.0f} GiB or more, this "
            f"machine has {there / 2**30:,.0f}: draw fewer at a time, with another --seed each"
        )


def _places(
    run: RunDirectory, lines: list[str], files: Mapping[str, str | None]
) -> list[str | None]:
    try:
        return list(membership(lines, data_of(run, **files)))
    except (OSError, ValueError) as error:
        note(f"Whether these lines are new cannot be said: {worded_advice(str(error))}")
        return [None] * len(lines)
