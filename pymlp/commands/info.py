"""`pymlp info`: what is installed and active here, and what a data file repeats."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import click
import torch

from pymlp import _engine, isa, sources
from pymlp._library import CUDA_ARCHITECTURES
from pymlp.commands.common import given, json_option, print_json, say
from pymlp.commands.data_options import (
    READABLE,
    data_options,
    file_options,
    load_data,
    source_option,
)
from pymlp.data import Overlap, names


def _check_file(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and value != sources.BUNDLED:
        READABLE.convert(value, parameter, ctx)  # or exit code 2
    return value


@click.command(epilog="Example: pymlp info --data names.txt")
@source_option(
    "Report on the lines of FILE instead, without FILE on the bundled names: how many there "
    "are, how many are repeated, and how many of dev and test also stand in train.",
    type=str,
    callback=_check_file,
    is_flag=False,
    flag_value=sources.BUNDLED,
    metavar="[FILE]",
)
@file_options
@data_options
@json_option
def info(source: str | None, as_json: bool, **options: Any) -> None:
    """Say what pymlp runs with on this machine; the first thing to put into a bug report."""
    chosen = given(options)
    if source is None and chosen:
        flag = next(iter(chosen)).replace("_", "-")
        raise click.UsageError(f"--{flag} says how a file is read: give --data, too")
    facts = _environment() if source is None else _report(source, chosen)
    if as_json:
        print_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        say(f"{name.replace('_', ' '):<{width}}  {_text(value)}")


def _environment() -> dict[str, Any]:
    return {
        "pymlp": version("pymlp"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "compiler": _engine.compiler(),
        "isa_available": isa.available(),
        "isa_active": isa.active(),
        "threads": torch.get_num_threads(),
        "cuda_kernels": list(CUDA_ARCHITECTURES) or None,
        "cuda_devices": _cuda_devices() or None,
        "bundled_names": len(names()),
    }


def _cuda_devices() -> list[str]:
    """The CUDA devices that torch sees, with the architecture, which decides what kernels run."""
    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(f"{properties.name} (sm_{properties.major}{properties.minor})")
    return devices


def _report(source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    file = None if source == sources.BUNDLED else source
    data = load_data(file, {}, options)
    report = data.report()
    return {
        "data": source,
        "lines": report.n_lines,
        "empty_lines_skipped": data.n_empty,
        "vocab_size": len(data.vocabulary),
        **{f"{split}_examples": count for split, count in data.sizes.items()},
        "unique": report.n_unique,
        "repeated": report.n_repeated,
        "dev_in_train": asdict(report.dev),
        "test_in_train": asdict(report.test),
    }


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        overlap = Overlap(**value)
        share = 100 * overlap.lines / max(1, overlap.n_lines)
        return (
            f"{overlap.lines:,} of {overlap.n_lines:,} lines ({share:.1f}%), "
            f"{overlap.positions:,} of {overlap.n_positions:,} examples"
        )
    if isinstance(value, list):
        return ", ".join(value)
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
