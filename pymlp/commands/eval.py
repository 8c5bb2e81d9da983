"""`pymlp eval`: the exact loss of a run's model."""

from __future__ import annotations

import math

import click

from pymlp.commands.common import (
    best_option,
    data_of,
    json_option,
    print_json,
    run_argument,
    run_data_options,
    say,
    threads_option,
)
from pymlp.commands.data_options import OnceOption
from pymlp.data import Splits
from pymlp.evaluate import evaluate as exact_loss
from pymlp.evaluate import perplexity
from pymlp.rundir import RunDirectory


@click.command("eval", epilog="Example: pymlp eval runs/lecture --split test")
@run_argument
@run_data_options
@click.option(
    "--split",
    cls=OnceOption,
    type=click.Choice(Splits._fields),
    default="dev",
    show_default=True,
    help="Which lines to evaluate on; test is read only when asked for here.",
)
@best_option
@threads_option
@json_option
def evaluate(run: RunDirectory, split: str, best: bool, as_json: bool, **files: str | None) -> None:
    """Print the mean loss of the model in the directory RUN over a whole split."""
    examples = getattr(data_of(run, **files), split)
    loss = exact_loss(run.model(best=best), examples)
    bits = loss / math.log(2)
    if as_json:
        print_json(
            {
                "run": str(run.path),
                "split": split,
                "best": best,
                "examples": len(examples),
                "loss": loss,
                "perplexity": perplexity(loss),
                "bits": bits,
            }
        )
    else:
        say(
            f"{split} loss {loss:.4f} nats per token over {len(examples):,} examples "
            f"(perplexity {perplexity(loss):.3f}, {bits:.4f} bits)"
        )
