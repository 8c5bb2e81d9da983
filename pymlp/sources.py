"""Where the data of a run come from, so that another process finds and recognises them."""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pymlp import lines
from pymlp.data import DataConfig, Dataset
from pymlp.loading import load as load_file

BUNDLED = "bundled names"

_URI = "file://"


def load(source: str, block_size: int = 3, config: DataConfig | None = None) -> Dataset:
    """The data set of the file ``source``, or of the names that come with pymlp for `BUNDLED`.

    Raises:
        OSError, ValueError: as `pymlp.data.load`.
    """
    path = Path(lines.__file__).with_name("names.txt") if source == BUNDLED else source
    return load_file(path, block_size, config)


def describe(data: Dataset, source: str | None) -> dict[str, Any]:
    """The table ``[data]`` of a run: the source, if it is known, how it was read, and a digest."""
    table = dict(data.origin or {}) | {"sha256": data.digest}
    if source is not None:
        table["source"] = source
    if "source" in table:
        table["source"] = _as_text(os.fspath(table["source"]))
    return table


def recall(table: Mapping[str, Any], block_size: int) -> Dataset:
    """The data set that `describe` described.

    Raises:
        ValueError: its source is unknown, or has other lines now.
        FileNotFoundError: its source is not there any more.
        OSError: its source cannot be read.
    """
    if "source" not in table:
        raise ValueError("the run does not say where its data come from: pass them as `data`")
    source = _as_path(table["source"])
    try:
        data = load(source, block_size, config_of(table))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the data that the run was trained on are not in {source} any more: put them back, or "
            "correct `source` in config.toml"
        ) from None
    check(data, table)
    return data


def config_of(table: Mapping[str, Any]) -> DataConfig:
    """How the data that `describe` described were read.

    Raises:
        ValueError: the table does not say it.
    """
    names = {field.name for field in fields(DataConfig)}
    try:
        return DataConfig(**{name: value for name, value in table.items() if name in names})
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"table [data] of config.toml: {error}") from None


def check(data: Dataset, table: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``data`` are, line by line and split by split, the ones described."""
    if data.digest != table.get("sha256"):
        source = table.get("source", "the data set passed")
        raise ValueError(
            f"{source}: these are not the lines that the run was trained on "
            "(their digest differs): restore the data, or start a new run"
        )


def _as_text(path: str) -> str:
    """The path as TOML can hold it: a URI if it has bytes that are not UTF-8."""
    try:
        path.encode()
        return path
    except UnicodeEncodeError:
        return _URI + quote_from_bytes(os.fsencode(path))


def _as_path(text: object) -> str:
    """The inverse of `_as_text`."""
    if not isinstance(text, str):
        raise ValueError(f"source in table [data] of config.toml must be a string, got {text!r}")
    return os.fsdecode(unquote_to_bytes(text[len(_URI) :])) if text.startswith(_URI) else text
