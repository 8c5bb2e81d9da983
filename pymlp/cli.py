"""The command line program `pymlp`.

Results go to stdout, everything else to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage,
128 + the signal's number when interrupted. Only this program turns errors into exit codes and sets
numbers of threads; the library raises and leaves both alone.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from pymlp.commands.bench import bench
from pymlp.commands.eval import evaluate
from pymlp.commands.info import info
from pymlp.commands.nearest import nearest
from pymlp.commands.plot import plot
from pymlp.commands.prepare import prepare
from pymlp.commands.rescore import rescore
from pymlp.commands.sample import sample
from pymlp.commands.score import score
from pymlp.commands.table import table
from pymlp.commands.train import train


class Program(click.Group):
    """A group whose commands end with a message, not a traceback, when the library raises."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Parse the arguments of the group; --help is printed here."""
        with _errors_are_messages():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _errors_are_messages():
            return super().invoke(ctx)


@contextmanager
def _errors_are_messages() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # the reader of our output has left; click ends quietly
    except (ValueError, OSError, ArithmeticError, ImportError, MemoryError) as error:
        raise click.ClickException(str(error) or type(error).__name__) from error
    except IndexError as error:
        if not str(error).startswith("pymlp: "):  # the engine's, of data that it was given
            raise
        hint = "if they are of a token file, it is damaged: prepare the text again"
        raise click.ClickException(f"{error}; {hint}") from error
    except RuntimeError as error:
        if "allocate" not in str(error):  # torch has no exception of its own for lack of memory
            raise
        raise click.ClickException(f"not enough memory: {error}".splitlines()[0]) from error
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        raise click.exceptions.Exit(128 + signal.SIGINT) from None


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
