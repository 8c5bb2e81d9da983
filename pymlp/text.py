"""Text files, plain or gzip, block by block; and the stream of their tokens, numbered as met."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pymlp import _engine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK_BYTES = 2**22


def read_blocks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The bytes of a file, a few megabytes at a time; what gzip has packed is unpacked.

    Raises:
        OSError: the file cannot be read (FileNotFoundError where there is none).
        ValueError: the file is damaged gzip.
    """
    with open(path, "rb") as file:
        if file.read(len(_GZIP_MAGIC)) != _GZIP_MAGIC:
            file.seek(0)
            yield from iter(lambda: file.read(_BLOCK_BYTES), b"")
            return
        file.seek(0)
        try:
            with gzip.open(file) as unpacked:
                yield from iter(lambda: unpacked.read(_BLOCK_BYTES), b"")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{os.fspath(path)}: damaged gzip file: {error}; get or pack it again"
            ) from None


def read_numbers(
    path: str | os.PathLike[str], reader: _engine.TextReader
) -> Iterator[NDArray[np.int32]]:
    """The stream of a UTF-8 text file, block by block, with the numbers that ``reader`` gives.

    Lines end with LF or CR LF; a byte order mark at the start is dropped; empty lines are left out.
    Words are what white space separates, as for `str.split`.

    Raises:
        OSError: as `read_blocks`.
        ValueError: as `read_blocks`; or the file is not valid UTF-8: the message has the line and
            the byte.
    """
    for block in read_blocks(path):
        yield _located(path, reader.feed, block)
    yield _located(path, reader.finish)


def _located(path: str | os.PathLike[str], call, *arguments):  # type: ignore[no-untyped-def]
    try:
        return call(*arguments)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
