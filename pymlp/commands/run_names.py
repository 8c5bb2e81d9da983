"""The default directory of a run: runs/PRESET, runs/PRESET-2, runs/PRESET-3, and so on."""

from __future__ import annotations

import re
from pathlib import Path


def next_free(preset: str) -> Path:
    """The first of runs/PRESET, runs/PRESET-2, ... that does not exist."""
    path, number = Path("runs", preset), 1
    while path.exists():
        number += 1
        path = Path("runs", f"{preset}-{number}")
    return path


def newest(preset: str) -> Path:
    """The last of runs/PRESET, runs/PRESET-2, ... that exists; runs/PRESET where none does."""
    names = (path.name for path in Path("runs").glob(f"{preset}*"))
    numbers = [
        int(match[1] or 1)
        for match in (re.fullmatch(rf"{preset}(?:-(\d+))?", name) for name in names)
        if match
    ]
    last = max(numbers, default=1)
    return Path("runs", preset if last == 1 else f"{preset}-{last}")
