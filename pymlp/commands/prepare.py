"""`pymlp prepare`: a text becomes a token file, which trains memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pymlp.commands.common import given, json_option, print_json, say, shown
from pymlp.commands.data_options import vocabulary_options
from pymlp.data import prepare as write_token_file


@click.command(epilog="Example: pymlp prepare brown.txt --tokens word --min-count 4")
@click.argument("text", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The token file.  [default: TEXT with .tokens behind it]",
)
@vocabulary_options
@json_option
def prepare(text: Path, out: Path | None, as_json: bool, **options: Any) -> None:
    """Make a token file of TEXT, plain or gzip, for pymlp train --data.

    It holds the vocabulary and the text as integers. Training maps it into memory, so the text may
    be larger than that.
    """
    out = out or text.with_name(f"{text.name}.tokens")
    chosen = given(options)
    made = write_token_file(text, out, **({"tokens": "char"} | chosen))
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
