"""`pymlp nearest`: tokens with similar embeddings."""

from __future__ import annotations

import click

from pymlp.commands.common import POSITIVE, best_option, json_option, print_json, run_argument, say
from pymlp.embeddings import nearest as find
from pymlp.rundir import RunDirectory


@click.command(epilog="Example: pymlp nearest runs/bengio Monday cat -k 5")
@run_argument
@click.argument("tokens", nargs=-1, required=True)
@click.option("-k", type=POSITIVE, default=10, show_default=True, help="How many of each.")
@best_option
@json_option
def nearest(run: RunDirectory, tokens: tuple[str, ...], k: int, best: bool, as_json: bool) -> None:
    """Print the tokens nearest to each of TOKENS in the embedding of the model in RUN.

    One line each: the cosine of the angle between the two, a tab, the token. With --json there is
    one object for each of TOKENS.
    """
    lists = find(run.model(best=best), run.vocabulary(), tokens, k)
    for token, found in zip(tokens, lists, strict=True):
        if as_json:
            print_json({"token": token, "nearest": [neighbour._asdict() for neighbour in found]})
            continue
        if len(tokens) > 1:
            say(token)
        for neighbour in found:
            say(f"{neighbour.similarity:.4f}\t{neighbour.token}")
