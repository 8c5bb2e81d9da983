"""Token files: a prepared corpus, which trains memory-mapped.

A token file is a safetensors file with one tensor, ``ids`` (N,) int32, a stream as in
`pymlp.streams`; its metadata hold the vocabulary, the number of lines and the SHA-256 of the ids.
Any reader of safetensors opens it. It is written block by block: neither the text nor the stream
need fit into memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from pymlp import _engine
from pymlp.files import replacing
from pymlp.streams import MappedFile, TokenStream
from pymlp.text import Input, Readable, begins_as_token_file, open_input, read_numbers
from pymlp.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VERSION = 1
_IDS_AT_ONCE = 2**20
_ALIGNMENT = 64


class Prepared(NamedTuple):
    """The contents of a token file, apart from the ids.

    Attributes:
        vocabulary: of the ids.
        n_ids: length of the stream, boundaries included.
        n_lines: lines, and so boundaries.
        n_empty: empty lines of the text, which were left out.
        sha256: of the ids.
    """

    vocabulary: Vocabulary
    n_ids: int
    n_lines: int
    n_empty: int
    sha256: str

    @property
    def n_tokens(self) -> int:
        """Tokens of the text."""
        return self.n_ids - self.n_lines


def prepare(
    path: Readable,
    out: str | os.PathLike[str],
    *,
    tokens: str = "char",
    lowercase: bool = False,
    min_count: int = 1,
    vocab_size: int | None = None,
) -> Prepared:
    """Write the token file ``out`` of a text, plain or gzip.

    ``out`` appears whole or not at all. Memory is needed for the different tokens of the text
    alone; disk, meanwhile, for two streams of 4 bytes a token.

    Args:
        path: or a file opened for bytes: UTF-8, one line for each sentence or name. It is
            read once.
        out: replaced if it is there.
        tokens: ``"char"`` or ``"word"``.
        lowercase, min_count, vocab_size: as in `Vocabulary.from_counts`.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: the text is empty, not UTF-8 or damaged gzip, or a token file itself; ``out`` is
            the text; or an option is out of range.
    """
    check_kind(tokens)
    out = Path(out)
    reader = _engine.TextReader(tokens == "word")
    counts = np.zeros(0, np.int64)
    with open_input(path) as file, _beside(file, out) as numbers:
        for block in read_numbers(file, reader):
            numbers.write(block.data)
            counts = add_counts(counts, block)
        check_not_empty(file.name, reader.n_lines)
        vocabulary, ids = Vocabulary.from_counts(
            reader.spellings(),
            counts[1:].tolist(),
            separator=" " if tokens == "word" else "",
            lowercase=lowercase,
            min_count=min_count,
            vocab_size=vocab_size,
        )
        blocks = (ids[block] for block in _blocks_of(numbers))
        return _write(out, blocks, vocabulary, int(counts.sum()), reader)


def _beside(file: Input, out: Path) -> IO[bytes]:
    """A nameless file beside ``out``, if that can be the token file of ``file``."""
    if is_token_file(file):
        raise ValueError(f"{file.name} is a token file: prepare the text that it was made of")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: there is no directory {out.parent}")
    if file.path is not None and out.exists() and out.samefile(file.path):
        raise ValueError(f"{out}: the token file would replace its text: name another file")
    try:
        return tempfile.TemporaryFile(dir=out.parent)
    except OSError as error:  # it names a file that nobody has asked for
        raise OSError(error.errno, error.strerror, os.fspath(out)) from error


def check_kind(tokens: str) -> None:
    """Raise ValueError for what is not a kind of token."""
    if tokens not in ("char", "word"):
        raise ValueError(f"tokens must be 'char' or 'word', got {tokens!r}")


def check_not_empty(name: str, n_lines: int) -> None:
    """Raise ValueError for a text without a token."""
    if n_lines == 0:
        raise ValueError(f"{name}: there are no lines to learn from, the text is empty")


def add_counts(counts: NDArray[np.int64], block: NDArray[np.int32]) -> NDArray[np.int64]:
    """``counts`` of each number, longer where the block has new ones, with those of the block."""
    total = np.bincount(block, minlength=len(counts))
    total[: len(counts)] += counts
    return total


def _blocks_of(file: IO[bytes]) -> Iterator[NDArray[np.int32]]:
    file.seek(0)
    while content := file.read(4 * _IDS_AT_ONCE):
        yield np.frombuffer(content, np.int32)


def _write(
    out: Path,
    blocks: Iterator[NDArray[np.int32]],
    vocabulary: Vocabulary,
    n_ids: int,
    reader: _engine.TextReader,
) -> Prepared:
    prepared = Prepared(
        vocabulary, n_ids, reader.n_lines, reader.n_empty, hashlib.sha256().hexdigest()
    )
    hasher = hashlib.sha256()
    with replacing(out) as file:
        file.write(_header(prepared))
        for block in blocks:
            content = block.astype("<i4", copy=False).data
            hasher.update(content)
            file.write(content)
        # The digest is as long as the one that stood there, and so is the header.
        prepared = prepared._replace(sha256=hasher.hexdigest())
        file.seek(0)
        file.write(_header(prepared))
    return prepared


def _header(prepared: Prepared) -> bytes:
    """Eight bytes with the length of the JSON object, and that object, padded by blanks."""
    fields: dict[str, Any] = {
        "version": _VERSION,
        "n_lines": prepared.n_lines,
        "n_empty": prepared.n_empty,
        "sha256": prepared.sha256,
        "vocabulary": json.loads(prepared.vocabulary.to_json()),
    }
    header = {
        "__metadata__": {"pymlp.tokens": json.dumps(fields)},
        "ids": _tensor(prepared.n_ids),
    }
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _tensor(n_ids: int) -> dict[str, Any]:
    return {"dtype": "I32", "shape": [n_ids], "data_offsets": [0, 4 * n_ids]}


def is_token_file(file: Input) -> bool:
    """Whether a file begins as safetensors files do: with bytes that no text has."""
    return begins_as_token_file(file.look(9))


def open_token_file(path: Readable) -> tuple[TokenStream, Prepared]:
    """The stream of a token file, mapped into memory, and what the file says of itself.

    The ids are not read here: an engine or an operator that meets one outside the vocabulary
    raises. From a pipe, which cannot be mapped, they are read into memory.

    Args:
        path: or a file opened for bytes, which is read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a token file, is damaged or cut short, or another version's.
    """
    with open_input(path) as file:
        content = io.BufferedReader(file)
        header = _read_header(file, content)
        prepared = _parse(file.name, header)
        begin, n_bytes = 8 + len(header), 4 * prepared.n_ids
        if file.path is None:
            origin, ids = None, np.frombuffer(bytearray().join(_pieces(content, n_bytes + 1)), "u1")
        else:
            origin, ids = _map(file.path, file.fileno(), begin, prepared.sha256)
    if len(ids) != n_bytes:
        raise ValueError(
            f"{file.name}: the token file is damaged: it should have {begin + n_bytes} bytes, it "
            f"has {begin + len(ids)}: prepare the text again"
        )
    tokens = torch.from_numpy(ids.view("<i4"))
    return TokenStream(tokens, vocab_size=len(prepared.vocabulary), file=origin), prepared


def _read_header(file: Input, content: IO[bytes]) -> bytes:
    if not is_token_file(file):
        raise _foreign(file.name)
    length = int.from_bytes(content.read(8), "little")
    header = b"".join(_pieces(content, length))
    if len(header) < length:
        raise ValueError(f"{file.name}: the token file is cut short: it ends within its header")
    return header


def _map(
    path: str, descriptor: int, begin: int, sha256: str
) -> tuple[MappedFile, NDArray[np.uint8]]:
    """The open file, and what it holds from byte ``begin`` on."""
    found = os.fstat(descriptor)
    # A copy on write: nobody else sees writes, and torch takes the array for writable.
    pages = mmap.mmap(descriptor, found.st_size, access=mmap.ACCESS_COPY)
    origin = MappedFile(path, (found.st_dev, found.st_ino), found.st_size, sha256)
    return origin, np.frombuffer(pages, np.uint8)[begin:]


def _pieces(content: IO[bytes], n_bytes: int) -> Iterator[bytes]:
    """So many bytes, or all there are; no more memory is taken than they need."""
    while n_bytes > 0 and (piece := content.read(min(n_bytes, 4 * _IDS_AT_ONCE))):
        yield piece
        n_bytes -= len(piece)


def _foreign(name: str) -> ValueError:
    return ValueError(
        f"{name}: not a token file of pymlp: pymlp prepare (or pymlp.data.prepare) writes them"
    )


def _parse(name: str, header: bytes) -> Prepared:
    """The contents of the header, every value of it checked."""
    try:
        tables = json.loads(header)
        fields = json.loads(tables["__metadata__"]["pymlp.tokens"])
        version, tensor = fields["version"], tables["ids"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _foreign(name) from None
    if version != _VERSION:
        raise ValueError(
            f"{name} is a token file of version {version!r:.20}, this pymlp reads version "
            f"{_VERSION}: prepare the text again"
        )
    try:
        (n_ids,) = tensor["shape"]
        n_lines, n_empty, sha256 = (fields[key] for key in ("n_lines", "n_empty", "sha256"))
        vocabulary = Vocabulary.from_json(json.dumps(fields["vocabulary"]))
        whole = all(type(n) is int for n in (version, n_ids, n_lines, n_empty))
        if not (whole and 1 <= n_lines <= n_ids and n_empty >= 0):
            raise ValueError(f"{n_lines!r:.20} lines, {n_empty!r:.20} empty, {n_ids!r:.20} ids")
        if tensor != _tensor(n_ids) or len(header) % 4:
            raise ValueError(f"expected the tensor {_tensor(n_ids)}, got {repr(tensor)[:100]}")
        if not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
            raise ValueError(f"sha256 {sha256!r:.20}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{name}: the token file is damaged: its header says: {reason}: prepare the text again"
        ) from None
    return Prepared(vocabulary, n_ids, n_lines, n_empty, sha256)
