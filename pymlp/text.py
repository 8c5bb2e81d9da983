"""Text files, plain or gzip: their blocks, their lines, and the stream of their tokens.

Tokens are numbered as they are met.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

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
    with _unpacked(path) as file:
        yield from iter(lambda: file.read(_BLOCK_BYTES), b"")


def iterate_lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """The lines of a UTF-8 text file, plain or gzip, one after the other, empty ones included.

    Raises:
        OSError: as `read_blocks`.
        ValueError: as `read_blocks` and `decode_lines`.
    """
    with _unpacked(path) as file:
        yield from decode_lines(file, os.fspath(path))


def decode_lines(lines: Iterable[bytes], name: str) -> Iterator[str]:
    r"""Lines of UTF-8 without their ends, "\n" or "\r\n", the first without a byte order mark.

    Args:
        lines: as a file opened for bytes gives them.
        name: of the file, for errors.

    Raises:
        ValueError: a line is not valid UTF-8; the message has the line and the byte.
    """
    begin = 0
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name}: not UTF-8 text: line {number}, byte {begin + error.start} of the file is "
                f"0x{line[error.start]:02x} ({error.reason}); convert the file to UTF-8"
            ) from None
        if number == 1:
            text = text.removeprefix("\ufeff")
        begin += len(line)
        yield text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


@contextmanager
def _unpacked(path: str | os.PathLike[str]) -> Iterator[IO[bytes] | gzip.GzipFile]:
    with open(path, "rb") as file:
        if not file.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC):
            yield file
            return
        try:
            with gzip.open(file) as unpacked:
                yield unpacked
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
