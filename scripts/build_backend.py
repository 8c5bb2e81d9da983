"""The build backend of pyproject.toml: setuptools, after a look at what there is to build with.

Without build isolation pip installs nothing to build with. What is missing then shows as the error
of whichever tool comes first; here it is one line that names all of it.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_NEEDED = re.compile(r"^requires = \[(.*)\]$", re.MULTILINE)


def missing(requirements: list[str]) -> list[str]:
    """The requirements, of the form "name" or "name>=version", that are not met here."""
    return [requirement for requirement in requirements if not _is_met(requirement)]


def _is_met(requirement: str) -> bool:
    name, _, least = requirement.partition(">=")
    try:
        return _numbers(version(name)) >= _numbers(least)
    except PackageNotFoundError:
        return False


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)[:2]]


def _check() -> None:
    table = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    found = _NEEDED.search(table)
    assert found is not None
    absent = missing(re.findall(r'"([^"]+)"', found[1]))
    if absent:
        quoted = " ".join(f"'{requirement}'" for requirement in absent)
        sys.exit(
            f"pymlp: building without isolation needs {', '.join(absent)} in this environment: "
            f"pip install {quoted}, or leave out --no-build-isolation"
        )


_check()

from setuptools.build_meta import *  # noqa: E402, F403
