"""`pymlp prepare`: a text becomes a token file, which trains memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pymlp.commands.common import given, json_option, print_json, say, shown
from pymlp.commands.data_options import READABLE, OnceOption, opened, vocabulary_options
from pymlp.data import prepare as write_token_file


@click.command(epilog="Example: pymlp prepare brown.txt --tokens word --min-count 4")
@click.argument("text", type=READABLE)
@click.option(
    "--out",
    cls=OnceOption,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The token file.  [default: TEXT with .tokens behind it]",
)
@vocabulary_options
@json_option
def prepare(text: str, out: Path | None, as_json: bool, **options: Any) -> None:
    """Make a token file of TEXT, plain or gzip, - for standard input, for pymlp train --data.

    It holds the vocabulary and the text as integers. Training maps it into memory, so the text may
    be larger than that.
    """
    chosen = given(options)
    with opened(text) as file:
        if out is None and file.path is None:
            raise click.UsageError("--out is needed where the text is not a file")
        out = out or Path(f"{text}.tokens")
        made = write_token_file(file, out, **({"tokens": "char"} | chosen))
    figures = {
        "tokens": made.n_tokens,
        "lines": made.n_lines,
        "empty_lines_skipped": made.n_empty,
        "vocab_size": len(made.vocabulary),
        "out": str(out),
    }
    if as_json:
        print_json(figures)
    else:
        say(
            f"{made.n_tokens:,} tokens in {made.n_lines:,} lines, {made.n_empty:,} empty lines "
            f"skipped, vocabulary of {len(made.vocabulary):,}: {shown(out)}"
        )
