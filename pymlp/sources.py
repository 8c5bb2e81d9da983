"""Where the data of a run come from, so that another process finds and recognises them."""

from collections.abc import Mapping
from typing import Any

from pymlp.data import Dataset, Lines, names, read_lines

BUNDLED = "bundled names"


def read(source: str) -> Lines:
    """The lines of the text file ``source``, or the names that come with pymlp for `BUNDLED`.

    Raises:
        OSError, ValueError: as `pymlp.data.read_lines`.
    """
    return names() if source == BUNDLED else read_lines(source)


def describe(data: Dataset, source: str | None) -> dict[str, Any]:
    """The table ``[data]`` of a run: the source, if it is known, and a digest of the splits."""
    return {"source": source, "sha256": data.digest}


def recall(table: Mapping[str, Any], block_size: int) -> Dataset:
    """The data set that `describe` described.

    Raises:
        ValueError: its source is unknown, or has other lines now.
        OSError: its source cannot be read.
    """
    if "source" not in table:
        raise ValueError("the run does not say where its data come from: pass them as `data`")
    data = Dataset.from_lines(read(table["source"]), block_size)
    check(data, table)
    return data


def check(data: Dataset, table: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``data`` are, line by line and split by split, the ones described."""
    if describe(data, None)["sha256"] != table.get("sha256"):
        source = table.get("source", "the data set passed")
        raise ValueError(
            f"{source}: these are not the lines that the run was trained on "
            "(their digest differs): restore the data, or start a new run"
        )
