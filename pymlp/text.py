"""Sources of bytes, opened once, and the text in them: blocks, lines, the stream of tokens.

Text is plain or gzip; tokens are numbered as they are met.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias, Union

from pymlp import _engine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK_BYTES = 2**22
# Columns of a table are told from text by the name of the file and these characters.
_DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}


class Input(io.RawIOBase):
    """A source of bytes whose first ones may be looked at before it is read, once.

    So a pipe is read as a file is: nothing is opened again, and nothing is lost.

    Args:
        file: open for reading bytes.
        name: for messages.

    Attributes:
        path: where another process finds the same file; None for what can be read only once.
    """

    def __init__(self, file: IO[bytes], name: str | None = None) -> None:
        # A buffered file gives as many bytes as there are: a pipe is not waited for.
        read = getattr(file, "read1", None) or getattr(file, "read", None)
        if read is None or isinstance(file, io.TextIOBase):
            raise TypeError(f"expected a path or a file opened for bytes ('rb'), got {file!r}")
        self._reads = read
        self._file = file
        self._start = b""
        self.name = str(getattr(file, "name", "the data")) if name is None else name
        self.path: str | None = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The descriptor of the file, where it has one."""
        return self._file.fileno()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer, or its beginning; the number of bytes, 0 at the end."""
        if self._start:
            piece, self._start = self._start[: len(buffer)], self._start[len(buffer) :]
        else:
            piece = self._read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _read(self, n: int) -> bytes:
        piece: bytes | None = self._reads(n)
        if not isinstance(piece, bytes):
            raise TypeError(
                f"{self.name}: expected bytes from a file that waits for them, got "
                f"{type(piece).__name__}: open it with 'rb'"
            )
        return piece

    def look(self, n: int) -> bytes:
        """The next ``n`` bytes, fewer only before the end; they stay to be read."""
        while len(self._start) < n and (piece := self._read(n - len(self._start))):
            self._start += piece
        return self._start[:n]

    def starts_with(self, start: bytes) -> bool:
        """Whether the next bytes are these; none is waited for once they cannot be."""
        return all(self.look(n) == start[:n] for n in range(1, len(start) + 1))


Readable: TypeAlias = Union[str, "os.PathLike[str]", IO[bytes], Input]


@contextmanager
def open_input(source: Readable) -> Iterator[Input]:
    """The file at a path, or a file that is open for bytes, as an `Input`.

    Raises:
        OSError: the path cannot be opened (FileNotFoundError where there is nothing).
        TypeError: ``source`` is neither.
    """
    if isinstance(source, Input):
        yield source
    elif not isinstance(source, (str, os.PathLike)):
        yield Input(source)
    else:
        with open(source, "rb", buffering=0) as file:
            opened = Input(file, os.fspath(source))
            # The real path of /dev/fd/3 and the like is that of the file behind it.
            path = os.path.realpath(source)
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and os.path.isfile(path):
                opened.path = path
            yield opened


def read_blocks(source: Readable) -> Iterator[bytes]:
    """The bytes of a source, a few megabytes at a time; what gzip has packed is unpacked.

    Raises:
        OSError: the file cannot be read (FileNotFoundError where there is none).
        ValueError: the file is damaged gzip.
    """
    with open_input(source) as file, _unpacked(file) as unpacked:
        yield from iter(lambda: unpacked.read(_BLOCK_BYTES), b"")


def iterate_lines(source: Readable) -> Iterator[str]:
    """The lines of UTF-8 text, plain or gzip, one after the other, empty ones included.

    Raises:
        OSError: as `read_blocks`.
        ValueError: as `read_blocks` and `decode_lines`.
    """
    with open_input(source) as file, _unpacked(file) as unpacked:
        yield from decode_lines(unpacked, file.name)


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
        yield without_end(text)


def without_end(line: str) -> str:
    r"""The line without one "\n" or "\r\n" behind it."""
    return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


@contextmanager
def _unpacked(file: Input) -> Iterator[IO[bytes] | gzip.GzipFile]:
    buffered = io.BufferedReader(file)
    if not file.starts_with(_GZIP_MAGIC):
        yield buffered
        return
    try:
        with gzip.open(buffered) as unpacked:
            yield unpacked
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file.name}: damaged gzip file: {error}; get or pack it again") from None


def read_numbers(source: Readable, reader: _engine.TextReader) -> Iterator[NDArray[np.int32]]:
    """The stream of UTF-8 text, block by block, with the numbers that ``reader`` gives.

    Lines end with LF or CR LF; a byte order mark at the start is dropped; empty lines are left out.
    Words are what white space separates, as for `str.split`.

    Raises:
        OSError: as `read_blocks`.
        ValueError: as `read_blocks`; or the file is not valid UTF-8: the message has the line and
            the byte; or it is a table of several columns, or a token file that gzip has packed.
    """
    with open_input(source) as file:
        blocks = read_blocks(file)
        first = next(blocks, b"")
        if begins_as_token_file(first):
            raise ValueError(
                f"{file.name}: this is a token file that gzip has packed: unpack it first, such as "
                "with gunzip"
            )
        _refuse_table(file.name, first)
        yield _located(file.name, reader.feed, first)
        for block in blocks:
            yield _located(file.name, reader.feed, block)
        yield _located(file.name, reader.finish)


def begins_as_token_file(start: bytes) -> bool:
    """Whether the first nine bytes are those of safetensors files, which no text has."""
    return start[4:9] == b"\0\0\0\0{"


def _refuse_table(name: str, first_block: bytes) -> None:
    """Raise ValueError for a .csv or .tsv file of several columns, which is no text to learn."""
    kind = Path(name.lower().removesuffix(".gz")).suffix
    line = first_block.split(b"\n", 1)[0].decode(errors="replace")
    if any(delimiter in line for delimiter in _DELIMITERS.get(kind, "")):
        raise ValueError(
            f"{name}: this is a table, whose first line is {line.strip()[:40]!r}, not one text a "
            "line: write the column to learn from to a text file, such as with csvcut -c NAME, or "
            f"give the file a name without {kind} to learn from whole lines"
        )


def _located(name: str, call, *arguments):  # type: ignore[no-untyped-def]
    try:
        return call(*arguments)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
