"""`pymlp plot`: pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from torch import Tensor

from pymlp.commands.common import (
    COUNT,
    POSITIVE,
    best_option,
    data_of,
    json_option,
    note,
    print_json,
    run_argument,
    run_data_options,
    say,
    shown,
    worded_advice,
)
from pymlp.commands.data_options import OnceOption
from pymlp.data import Dataset, Vocabulary
from pymlp.history import evaluations
from pymlp.model import MLP
from pymlp.plots import (
    MAX_LABELS,
    embedding_figure,
    label_rows,
    loss_figure,
    save_figure,
    undrawable,
)
from pymlp.rundir import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@click.command(epilog="Example: pymlp plot runs/lecture")
@run_argument
@run_data_options
@click.option(
    "--out",
    cls=OnceOption,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the pictures.  [default: RUN]",
)
@click.option(
    "--window",
    type=POSITIVE,
    help="Steps averaged into a point of the loss curve.  [default: 1/200 of all]",
)
@click.option("--embedding", "only_embedding", is_flag=True, help="Draw the embedding alone.")
@click.option(
    "--labels",
    type=COUNT,
    default=MAX_LABELS,
    show_default=True,
    help="How many tokens of the embedding are named, the most frequent ones of train.",
)
@best_option
@json_option
def plot(
    run: RunDirectory,
    out: Path | None,
    window: int | None,
    only_embedding: bool,
    labels: int,
    best: bool,
    as_json: bool,
    **files: str | None,
) -> None:
    """Draw loss.png and embedding.png of the run in the directory RUN.

    An embedding of more than two dimensions is projected onto its first two principal components.
    """
    model = run.model(best=best)
    figures = {} if only_embedding else {"loss": _loss(run, window)}
    figures["embedding"] = _embedding(model, run.vocabulary(), _counts(run, labels, files), labels)
    paths = _save(figures, out or run.path)
    if as_json:
        print_json({name: str(path) for name, path in paths.items()})
    else:
        for path in paths.values():
            say(shown(path))


def draw(run: RunDirectory, data: Dataset) -> dict[str, Path]:
    """Leave both pictures in the run directory; their paths by name."""
    figures = {
        "loss": _loss(run),
        "embedding": _embedding(run.model(), run.vocabulary(), _count(data), MAX_LABELS),
    }
    return _save(figures, run.path)


def _embedding(model: MLP, vocabulary: Vocabulary, counts: Tensor | None, n_labels: int) -> Figure:
    """The map of the tokens; what no font has is told."""
    figure = embedding_figure(model.embedding.weight, vocabulary, counts, n_labels)
    named = label_rows(vocabulary, counts, n_labels)
    missing = undrawable(vocabulary.tokens[row] for row in named)
    if missing:
        characters = repr(missing)[1:-1]
        note(
            f"No installed font has {len(missing)} of the characters, which are drawn as code "
            f"points: {characters[:60]}{'...' * (len(characters) > 60)}"
        )
    return figure


def _loss(run: RunDirectory, window: int | None = None) -> Figure:
    return loss_figure(run.checkpoint().losses, evaluations(run.metrics()), window)


def _counts(run: RunDirectory, labels: int, files: Mapping[str, str | None]) -> Tensor | None:
    """How often each token occurs in train, if it matters and can be known."""
    if labels >= run.model_config().vocab_size:
        return None
    try:
        return _count(data_of(run, **files))
    except (OSError, ValueError) as error:
        reason = worded_advice(str(error))
        note(f"Which tokens are frequent cannot be said, the first ones are named: {reason}")
        return None


def _count(data: Dataset) -> Tensor:
    return data.train.counts(len(data.vocabulary))


def _save(figures: Mapping[str, Figure], out: Path) -> dict[str, Path]:
    out.mkdir(parents=True, exist_ok=True)
    paths = {name: out / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        save_figure(figure, paths[name])
    return paths
