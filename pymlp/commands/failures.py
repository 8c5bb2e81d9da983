"""Errors as the program tells them: one line, in the words of the command line."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from pymlp.commands.common import note, worded_advice
from pymlp.stepper import DivergedError

# Python names before a message, which the user of the program does not call.
_CALLED = re.compile(
    r"(?:(?<=: )|^)"
    r"(?:Trainer|\w+Config|Vocabulary|Dataset|Mixture|train_many|paper_table|\w+_figure"
    r"|sample|score|nearest|rescore): "
)
# A command of the same name says so itself.
_COMMAND = re.compile(r"(?:sample|score|nearest|rescore): ")


class Failure(click.ClickException):
    """One line on stderr and exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message; click's own stream would send UTF-8 to a terminal of ASCII."""
        super().show(file or sys.stderr)


@contextmanager
def errors_are_messages(parent: click.Context | None = None) -> Iterator[None]:
    """Turn every exception into exit codes and messages.

    Args:
        parent: context of the group whose command runs.
    """
    try:
        yield
    except (click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise  # the reader of our output has left; click ends quietly
    except click.ClickException as error:
        error.message = _worded(error.message, parent)  # type: ignore[misc]
        raise
    except Exception as error:
        raise Failure(_worded(_message(error), parent)) from error
    except KeyboardInterrupt:
        note("Interrupted.")
        raise click.exceptions.Exit(128 + signal.SIGINT) from None


def _message(error: Exception) -> str:
    text = " ".join(str(error).splitlines())
    if isinstance(error, OSError) and error.strerror:
        places = [name for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([*map(_path, places), error.strerror])
    # torch has no exception of its own for lack of memory.
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and re.search("allocate|out of memory", text)
    ):
        text = text.removeprefix("std::bad_alloc")
        return f"not enough memory{text and ': '}{text}"
    if isinstance(error, IndexError) and text.startswith("pymlp: "):  # data that the engine met
        return f"{text}; if they are of a token file, it is damaged: prepare the text again"
    # The trainer's own, of how the process was started.
    started = isinstance(error, RuntimeError) and text.startswith("Trainer: ")
    if started or isinstance(error, (ValueError, OSError, ImportError, DivergedError)):
        return text or type(error).__name__
    return _bug(error)


def _path(name: str | bytes | int) -> str:
    return str(name) if isinstance(name, int) else os.fsdecode(name)


def _bug(error: Exception) -> str:
    """An error that nobody expected: what to do with it."""
    name = type(error).__name__
    told = "".join(traceback.format_exception(error))
    if os.environ.get("PYMLP_TRACEBACK"):
        note(told)
        place = "the traceback above"
    else:
        place = _kept(told)
    return (
        f"this is a bug of pymlp ({name}: {' '.join(str(error).split())[:200]}): please report it "
        f"with the output of `pymlp info` and {place}"
    )


def _kept(told: str) -> str:
    """Leave a traceback in a file of the system's temporary directory; where it is."""
    try:
        handle, path = tempfile.mkstemp(prefix="pymlp-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(told)
    except OSError:
        return "what PYMLP_TRACEBACK=1 in the environment shows"
    return f"the traceback in {path}"


def _worded(message: str, parent: click.Context | None) -> str:
    """A message of the library without names of Python, options as they are typed.

    A path before the name stays, and what is said of its content.
    """
    message = worded_advice(message)
    called = list(_CALLED.finditer(message))
    if not called:
        return message
    kept, text = message[: called[-1].start()], message[called[-1].end() :]
    text = re.sub(r"\bMLPConfig\(([^()]*)\)", r"\1", text)
    if _COMMAND.match(called[-1][0]):
        kept += called[-1][0]
    if called[-1].start() == 0 and parent is not None and isinstance(parent.command, click.Group):
        command = parent.command.get_command(parent, parent.invoked_subcommand or "")
        for parameter in [] if command is None else command.params:
            text = _with_option(text, parameter)
    return kept + text


def _with_option(text: str, parameter: click.Parameter) -> str:
    """The text with the option of a parameter in place of its Python name."""
    flag, name = max(parameter.opts, key=len), re.escape(parameter.name or "")
    if not flag.startswith("--"):
        return text
    if not getattr(parameter, "is_flag", False):
        text = re.sub(rf"\b{name}='?([^\s',;)]+)'?", rf"{flag} \1", text)
    text = re.sub(rf"^{name}\b", flag, text)
    return re.sub(rf"(?<![\w-]){name}\b", flag, text) if "_" in name else text
