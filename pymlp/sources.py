"""Where the data of a run come from, so that another process finds and recognises them."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pymlp import lines
from pymlp.data import DataConfig, Dataset
from pymlp.loading import load as load_file

BUNDLED = "bundled names"


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
    return table if source is None else table | {"source": source}


def recall(table: Mapping[str, Any], block_size: int) -> Dataset:
    """The data set that `describe` described.

    Raises:
        ValueError: its source is unknown, or has other lines now.
        OSError: its source cannot be read.
    """
    if "source" not in table:
        raise ValueError("the run does not say where its data come from: pass them as `data`")
    data = load(table["source"], block_size, config_of(table))
    check(data, table)
    return data


def config_of(table: Mapping[str, Any]) -> DataConfig:
    """How the data that `describe` described were read."""
    names = {field.name for field in fields(DataConfig)}
    return DataConfig(**{name: value for name, value in table.items() if name in names})


def check(data: Dataset, table: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``data`` are, line by line and split by split, the ones described."""
    if data.digest != table.get("sha256"):
        source = table.get("source", "the data set passed")
        raise ValueError(
            f"{source}: these are not the lines that the run was trained on "
            "(their digest differs): restore the data, or start a new run"
        )
