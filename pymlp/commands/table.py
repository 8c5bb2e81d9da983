"""`pymlp table`: the paper's Table 1 on a corpus of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from pymlp.commands.common import given, json_option, note, print_json, say, threads_option
from pymlp.commands.data_options import data_options, load_data, source_option
from pymlp.commands.train_options import MODEL_OPTIONS, TRAIN_OPTIONS, add_options
from pymlp.data import Dataset
from pymlp.paper import Neural
from pymlp.presets import PRESETS
from pymlp.progress import ProgressBar
from pymlp.run_config import RunConfig
from pymlp.table import MIXTURES, OWN, OWN_MIXED, ROWS, TableRow, paper_table


def _rows(ctx: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    known = (*ROWS, OWN, OWN_MIXED)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not among {', '.join(known)}")
    return names


@click.command(epilog="Example: pymlp table --data brown.txt --rows MLP9,MLP10,KN5")
@source_option(
    "Text file, one sentence a line, or a token file of `pymlp prepare`; - reads standard input.",
    required=True,
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="bengio",
    show_default=True,
    help="Settings that the options below change; rows of the paper set their own sizes.",
)
@click.option(
    "--rows",
    default=",".join(ROWS),
    callback=_rows,
    help="Which, separated by commas; own and own mixed have the sizes of the preset and the "
    "options.  [default: all of the paper's]",
)
@click.option(
    "--mixture",
    type=click.Choice(MIXTURES),
    default="fixed",
    show_default=True,
    help="Weights of network and trigram: half and half, learned on dev, or learned by the "
    "frequency of the context. contexts adds Kneser-Ney of order 5, by the longest known context.",
)
@click.option("--test", is_flag=True, help="Also read the test split.")
@data_options
@add_options(MODEL_OPTIONS | TRAIN_OPTIONS)
@threads_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="runs/table",
    show_default=True,
    help="Gets a run directory for each model; what is there is gone on with.",
)
@json_option
def table(
    source: str,
    preset: str,
    rows: list[str],
    mixture: str,
    test: bool,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Train rows of Table 1 of Bengio et al. (2003) and print them beside the paper's figures.

    The paper's own perplexities are of another tokenisation of the Brown corpus: compare ratios.
    """
    chosen = given(options)
    config = _config(preset, chosen)
    sizes = {**PRESETS[preset].model, **chosen}
    data = load_data(source, PRESETS[preset].data, chosen, sizes["block_size"])
    with ProgressBar() as progress:
        made = paper_table(
            data,
            config,
            out,
            rows,
            mixture=mixture,
            test=test,
            callbacks=[progress],
            on_row=lambda row: note(_told(row)),
        )
    if as_json:
        print_json(_report(data, config, mixture, made))
    else:
        _show(made, mixture)


def _config(preset: str, chosen: Mapping[str, Any]) -> RunConfig:
    known = {field.name for field in fields(RunConfig)}
    try:
        return RunConfig.from_preset(
            preset, **{name: x for name, x in chosen.items() if name in known}
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _told(row: TableRow) -> str:
    figures = ", ".join(f"{split} {x:.1f}" for split, x in row.perplexity.items())
    return f"{row.row.name}: perplexity {figures}"


def _report(data: Dataset, config: RunConfig, mixture: str, made: list[TableRow]) -> dict[str, Any]:
    return {
        "examples": data.sizes,
        "vocab_size": len(data.vocabulary),
        "mixture": mixture,
        "train": asdict(config.train_config()),
        "rows": [_flat(row) for row in made],
    }


def _flat(row: TableRow) -> dict[str, Any]:
    described = row.row._asdict()
    paper = described.pop("paper")._asdict()
    figures = {"n_params": row.n_params, "seconds": row.seconds, "perplexity": row.perplexity}
    return described | figures | {"paper": paper}


def _show(made: list[TableRow], mixture: str) -> None:
    splits = list(made[0].perplexity)
    shown = Table(box=None, pad_edge=False)
    for title in ("model", "n", "h", "m", "direct", "mix", "parameters", "seconds"):
        shown.add_column(title, justify="left" if title == "model" else "right")
    for title in (*splits, "paper: valid", "test"):
        shown.add_column(title, justify="right")
    for row in made:
        sizes = _sizes(row.row, mixture)
        cost = (_cell(row.n_params, ",d"), _cell(row.seconds, ",.0f"))
        judged = [f"{row.perplexity[split]:.1f}" for split in splits]
        paper = (_cell(row.paper.valid, "d"), _cell(row.paper.test, "d"))
        shown.add_row(row.row.name, *sizes, *cost, *judged, *paper)
    console = Console()
    width = max(console.width, console.measure(shown).maximum)  # no figure is cut
    console.print(shown, width=width, no_wrap=True, crop=False)
    say(
        "Perplexities per token, ends of lines included. The paper's are of another tokenisation: "
        "compare ratios."
    )


def _sizes(row: Any, mixture: str) -> tuple[str, ...]:
    if not isinstance(row, Neural):
        return (str(row.order), "", "", "", "")
    mixed = mixture if row.mixed else ""
    return (str(row.order), str(row.n_hidden), str(row.n_embd), "yes" if row.direct else "", mixed)


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
