"""Starts the program `pymlp`, or says in one line why that is impossible.

Outside of the package, because importing anything inside runs ``pymlp/__init__.py``, which raises
where libraries are missing or the environment is wrong.
"""

import signal
import sys


def main() -> None:
    """The entry point of the command."""
    try:
        from pymlp.cli import main as program
    except ImportError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    program(prog_name="pymlp")
