"""The sources of a run's data, so that another process finds and recognises the data."""

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pymlp import lines
from pymlp.data import DataConfig, Dataset
from pymlp.loading import load as load_file
from pymlp.text import Readable

BUNDLED = "bundled names"

# The advice of errors for data that are not found, in Python; the program words it otherwise.
PASS_DATA = "pass the data set, Trainer.resume(run, data)"

_URI = "file://"
_FILES = ("source", "dev", "test")


def load(
    source: Readable,
    block_size: int = 3,
    config: DataConfig | None = None,
    *,
    dev: Readable | None = None,
    test: Readable | None = None,
) -> Dataset:
    """The data set of ``source``, or of the names that come with pymlp for `BUNDLED`.

    Raises:
        OSError, TypeError, ValueError: as `pymlp.data.load`.
    """
    if source != BUNDLED:
        return load_file(source, block_size, config, dev=dev, test=test)
    data = load_file(lines.NAMES, block_size, config, dev=dev, test=test)
    origin = data.origin or {}
    return replace(data, origin={**origin, "source": BUNDLED}) if "source" in origin else data


def describe(data: Dataset, source: str | None) -> dict[str, Any]:
    """The table ``[data]`` of a run: the sources, if they are known, how they were read, a digest.

    What was read from a pipe has no source.
    """
    table = dict(data.origin or {}) | {"sha256": data.digest}
    if source is not None:
        table["source"] = source
    for name in _FILES:
        if name in table:
            table[name] = _as_text(os.fspath(table[name]))
    return table


def files_of(table: Mapping[str, Any]) -> dict[str, str]:
    """The files of the data that `describe` described: ``source``, ``dev`` and ``test``."""
    return {name: _as_path(table[name], name) for name in _FILES if name in table}


def recall(table: Mapping[str, Any], block_size: int) -> Dataset:
    """The data set that `describe` described.

    Raises:
        ValueError: its source is unknown, or has other lines now.
        OSError: its source cannot be read, such as FileNotFoundError.
    """
    files = files_of(table)
    if "source" not in files:
        raise ValueError(
            "the run does not say where its data come from (it was a pipe, or lines in Python): "
            f"{PASS_DATA}"
        )
    try:
        data = load(block_size=block_size, config=config_of(table), **files)
    except OSError as error:
        raise type(error)(
            f"the run's data file {error.filename or files['source']} cannot be read "
            f"({error.strerror or error}): put it back, or {PASS_DATA}"
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
    """Raise ValueError unless ``data`` are, line by line and split by split, the ones described.

    A token file is read as a whole for this, once for each state of the file.
    """
    data.stream.check_digest()
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


def _as_path(text: object, name: str) -> str:
    """The inverse of `_as_text`."""
    if not isinstance(text, str):
        raise ValueError(f"{name} in table [data] of config.toml must be a string, got {text!r}")
    return os.fsdecode(unquote_to_bytes(text[len(_URI) :])) if text.startswith(_URI) else text
