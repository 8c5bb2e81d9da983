"""The build backend of pyproject.toml: setuptools, after a look at what there is to build with.

Without build isolation pip installs nothing to build with. What is missing then shows as the error
of whichever tool comes first; here it is one line that names all of it.
"""

import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_NEEDED = re.compile(r"^requires = \[(.*?)\]$", re.MULTILINE | re.DOTALL)
# Programs, which need not come from PyPI.
_PROGRAMS = ("cmake", "ninja")


def check() -> None:
    """Exit with one line that names all that is missing to build the package."""
    table = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    found = _NEEDED.search(table)
    assert found is not None
    absent = [name for name in re.findall(r'"([^"]+)"', found[1]) if not _is_met(name)]
    if absent:
        quoted = " ".join(f"'{requirement}'" for requirement in absent)
        sys.exit(
            f"pymlp: building without isolation needs {', '.join(absent)} in this environment: "
            f"pip install {quoted}, or leave out --no-build-isolation"
        )


def _is_met(requirement: str) -> bool:
    """Whether a requirement of the form "name" or "name>=version" is met here."""
    name, _, least = requirement.partition(">=")
    try:
        return _numbers(version(name)) >= _numbers(least)
    except PackageNotFoundError:
        return name in _PROGRAMS and shutil.which(name) is not None


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)[:2]]


try:
    from setuptools import build_meta
    from setuptools.build_meta import *  # noqa: F403
except ImportError:
    check()
    raise


def prepare_metadata_for_build_wheel(*arguments: Any, **options: Any) -> str:
    """As setuptools does, after the check."""
    check()
    return build_meta.prepare_metadata_for_build_wheel(*arguments, **options)


def prepare_metadata_for_build_editable(*arguments: Any, **options: Any) -> str:
    """As setuptools does, after the check."""
    check()
    return build_meta.prepare_metadata_for_build_editable(*arguments, **options)
