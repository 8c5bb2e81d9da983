"""The command line program `pymlp`.

Results go to stdout, everything else to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage,
128 + the signal's number when interrupted. Only this program turns errors into exit codes and sets
numbers of threads; the library raises and leaves both alone.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from pymlp.commands.bench import bench
from pymlp.commands.eval import evaluate
from pymlp.commands.failures import errors_are_messages
from pymlp.commands.info import info
from pymlp.commands.nearest import nearest
from pymlp.commands.plot import plot
from pymlp.commands.prepare import prepare
from pymlp.commands.rescore import rescore
from pymlp.commands.sample import sample
from pymlp.commands.score import score
from pymlp.commands.table import table
from pymlp.commands.train import train
from pymlp.files import naming


class Program(click.Group):
    """A group whose commands end with a message, not a traceback, when the library raises."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the program; characters that its output cannot have are escaped."""
        if sys.stderr is None:  # closed: click would print errors on stdout
            sys.stderr = io.StringIO()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return super().main(*arguments, **options)

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Parse the arguments of the group; --help is printed here."""
        with errors_are_messages(), naming("standard output"):
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with errors_are_messages(ctx):
            return super().invoke(ctx)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: pymlp train",
)
@click.version_option(package_name="pymlp", message="pymlp %(version)s")
def main() -> None:
    """Train, judge and use the MLP language model of Bengio et al. (2003)."""


for command in (
    train,
    prepare,
    evaluate,
    sample,
    score,
    rescore,
    nearest,
    table,
    plot,
    info,
    bench,
):
    main.add_command(command)
