"""`pymlp bench`: the benchmark suite, which has a command line of its own."""

from __future__ import annotations

import click


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
    short_help="Measure pymlp against PyTorch and others on this machine.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Measure pymlp against PyTorch and others on this machine; see `pymlp bench --help`."""
    from pymlp.benchmarks.__main__ import main

    ctx.exit(main(list(arguments)))
