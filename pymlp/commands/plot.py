"""`pymlp plot`: pictures of a run."""

from __future__ import annotations

from pathlib import Path

import click

from pymlp.commands.common import json_option, print_json, run_argument, shown
from pymlp.history import evaluations
from pymlp.plots import embedding_figure, loss_figure, save_figure
from pymlp.rundir import RunDirectory


@click.command(epilog="Example: pymlp plot runs/lecture")
@run_argument
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the pictures.  [default: RUN]",
)
@click.option(
    "--window",
    type=click.IntRange(min=1),
    help="Steps averaged into a point of the loss curve.  [default: 1/200 of all]",
)
@json_option
def plot(run: RunDirectory, out: Path | None, window: int | None, as_json: bool) -> None:
    """Draw loss.png and embedding.png of the run in the directory RUN."""
    paths = draw(run, out or run.path, window)
    if as_json:
        print_json({name: str(path) for name, path in paths.items()})
    else:
        for path in paths.values():
            click.echo(shown(path))


def draw(run: RunDirectory, out: Path, window: int | None = None) -> dict[str, Path]:
    """Write the pictures into ``out``; their paths by name."""
    losses = run.checkpoint().losses
    figures = {
        "loss": loss_figure(losses, evaluations(run.metrics()), window),
        "embedding": embedding_figure(run.model().embedding.weight, run.vocabulary()),
    }
    out.mkdir(parents=True, exist_ok=True)
    paths = {name: out / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        save_figure(figure, paths[name])
    return paths
