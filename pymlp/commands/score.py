"""`pymlp score`: the log-probability of each line of a text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from pymlp.commands.common import (
    best_option,
    context_option,
    json_option,
    note,
    print_json,
    run_argument,
    runs_on,
    say,
    text_argument,
    threads_option,
)
from pymlp.rundir import RunDirectory
from pymlp.scoring import LineScore, LogZ, Text, log_z

_LINES_AT_ONCE = 10_000
_LINES_SAMPLED = 1000


@click.command(epilog="Example: pymlp score runs/lecture names.txt --per-token")
@run_argument
@text_argument
@click.option("--no-bos", is_flag=True, help="Lines do not begin at their first token.")
@click.option("--no-eos", is_flag=True, help="Lines do not end after their last token.")
@context_option
@click.option("--per-token", is_flag=True, help="Also the log-probability of every token, in nats.")
@click.option(
    "--line-buffered",
    is_flag=True,
    help="Answer each line before the next is read, for programs that talk over a pipe; slower.",
)
@click.option(
    "--unnormalized",
    is_flag=True,
    help="Take logits for log-probabilities: many times faster, for models trained with --z-loss. "
    "How far that is off is said at the end, from log Z on a sample of FILE's first lines.",
)
@best_option
@threads_option
@json_option
def score(
    run: RunDirectory,
    lines: Iterator[str],
    no_bos: bool,
    no_eos: bool,
    context: str | None,
    per_token: bool,
    line_buffered: bool,
    unnormalized: bool,
    best: bool,
    as_json: bool,
) -> None:
    """Print the log-probability of each line of FILE (default: standard input) under a run's model.

    One line out for each line in: nats, bits, perplexity, tokens, tokens that are not in the
    vocabulary, and the line, separated by tabs. The last line, on stderr, has the perplexity of
    all. An empty line is scored as the end of a line, while training skips it. With --json there is
    one object a line, and one with the totals at the end.
    """
    model, vocabulary = run.model(best=best), run.vocabulary()
    across = runs_on(run, context)
    options = {"bos": not no_bos, "eos": not no_eos, "across": across}
    text, spelled = (
        Text(model, vocabulary, normalized=not unnormalized, **options) for _ in range(2)
    )
    total = LineScore(0.0, 0, 0)
    count = 0
    first: list[str] = []
    for block in _blocks(lines, 1 if line_buffered else _LINES_AT_ONCE):
        first += block[: _LINES_SAMPLED - len(first)]
        for line, found in zip(block, text.score(block), strict=True):
            tokens = spelled.full_scores(line) if per_token else []
            _print(line, found, tokens, as_json)
            total = LineScore(*map(sum, zip(total, found, strict=True)))  # type: ignore[arg-type]
        count += len(block)
    off = log_z(model, vocabulary, first, **options) if unnormalized else None
    _print_total(count, total, off, as_json)


def _blocks(lines: Iterator[str], size: int) -> Iterator[list[str]]:
    while block := list(islice(lines, size)):
        yield block


def _print(line: str, found: LineScore, tokens: list[Any], as_json: bool) -> None:
    if as_json:
        result = {"text": line, **_figures(found)}
        if tokens:
            result["per_token"] = [token._asdict() for token in tokens]
        print_json(result)
        return
    figures = [f"{figure:.4f}" for figure in (found.log_prob, found.bits, found.perplexity)]
    say("\t".join([*figures, str(found.n_tokens), str(found.n_oov), line]))
    for token in tokens:
        say(f"\t{token.log_prob:.4f}\t{token.token}" + ("\toov" if token.oov else ""))


def _print_total(count: int, total: LineScore, off: LogZ | None, as_json: bool) -> None:
    if as_json:
        sampled = {} if off is None else {"log_z": off._asdict()}
        print_json({"lines": count, **_figures(total), **sampled})
        return
    note(
        f"{count:,} lines, {total.n_tokens:,} tokens, {total.n_oov:,} out of vocabulary: "
        f"{total.log_prob:.2f} nats, {total.bits:.2f} bits, perplexity {total.perplexity:.4f}"
    )
    if off is not None:
        note(
            f"not normalised: log Z is {off.mean:.4f} in the mean and at most {off.largest:.4f} "
            f"from 0, over {off.n_tokens:,} tokens; the perplexity is about "
            f"{total.perplexity * math.exp(off.mean):.4f}"
        )


def _figures(found: LineScore) -> dict[str, Any]:
    return {
        "log_prob": found.log_prob,
        "bits": found.bits,
        "tokens": found.n_tokens,
        "oov": found.n_oov,
        "perplexity": found.perplexity,
    }
