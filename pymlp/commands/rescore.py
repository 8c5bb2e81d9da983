"""`pymlp rescore`: n-best lists, scored anew with a run's model."""

from __future__ import annotations

from collections.abc import Iterator

import click

from pymlp import nbest
from pymlp.commands.common import (
    best_option,
    json_option,
    print_json,
    run_argument,
    say,
    text_argument,
    threads_option,
)
from pymlp.rundir import RunDirectory


@click.command(epilog="Example: pymlp rescore runs/bengio nbest.txt --weight 0.5 --one-best")
@run_argument
@text_argument
@click.option(
    "--weight",
    type=float,
    default=1.0,
    show_default=True,
    help="Of the log-probability in nats, which is added to the score of each line.",
)
@click.option("--one-best", is_flag=True, help="Print the best line of each list alone.")
@click.option(
    "--unnormalized",
    is_flag=True,
    help="Take logits for log-probabilities: many times faster, for models trained with --z-loss. "
    "`pymlp score --unnormalized` says how far off that is.",
)
@best_option
@threads_option
@json_option
def rescore(
    run: RunDirectory,
    lines: Iterator[str],
    weight: float,
    one_best: bool,
    unnormalized: bool,
    best: bool,
    as_json: bool,
) -> None:
    """Score the n-best lists of FILE (default: standard input) anew.

    Lines are those of Moses, "id ||| text ||| score", with any fields between text and score; those
    of one list follow each other. Each line is printed with two more fields: the log-probability of
    its text in nats, and its score plus the weighted log-probability. A text begins where a line
    begins, after nothing, also by a model of running text. For texts without a score, `pymlp score`
    gives the log-probabilities.
    """
    rescored = nbest.rescore(
        run.model(best=best),
        run.vocabulary(),
        nbest.parse(lines),
        weight,
        normalized=not unnormalized,
    )
    for hypothesis, log_prob, combined in nbest.best(rescored) if one_best else rescored:
        if as_json:
            described = {"id": hypothesis.id, "text": hypothesis.text, "score": hypothesis.score}
            print_json(described | {"log_prob": log_prob, "combined": combined})
        else:
            say(f"{hypothesis.line} ||| {log_prob:.4f} ||| {combined:.4f}")
