"""The command line program `pymlp`.

Results go to stdout, everything else to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage,
128 + the signal's number when interrupted. Only this program turns errors into exit codes and sets
numbers of threads; the library raises and leaves both alone.
"""

from __future__ import annotations

import signal
from typing import Any

import click

from pymlp.commands.bench import bench
from pymlp.commands.eval import evaluate
from pymlp.commands.info import info
from pymlp.commands.plot import plot
from pymlp.commands.sample import sample
from pymlp.commands.train import train


class Program(click.Group):
    """A group whose commands end with a message, not a traceback, when the library raises."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of our output has left; click ends quietly
        except (ValueError, OSError, ArithmeticError, ImportError, MemoryError) as error:
            raise click.ClickException(str(error) or type(error).__name__) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(128 + signal.SIGINT)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: pymlp train",
)
@click.version_option(package_name="pymlp", message="pymlp %(version)s")
def main() -> None:
    """Train, judge and use the MLP language model of Bengio et al. (2003)."""


for command in (train, evaluate, sample, plot, info, bench):
    main.add_command(command)
