"""Token files: a prepared corpus, which trains memory-mapped.

A token file is a safetensors file with one tensor, ``ids`` (N,) int32, a stream as in
`pymlp.streams`; its metadata hold the vocabulary, the number of lines and the SHA-256 of the ids.
Any reader of safetensors opens it. It is written block by block: neither the text nor the stream
need fit into memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from pymlp import _engine
from pymlp.files import replacing
from pymlp.streams import TokenStream
from pymlp.text import read_numbers
from pymlp.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VERSION = 1
_IDS_AT_ONCE = 2**20
_ALIGNMENT = 64


class Prepared(NamedTuple):
    """What a token file holds.

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
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tokens: str = "char",
    lowercase: bool = False,
    min_count: int = 1,
    vocab_size: int | None = None,
) -> Prepared:
    """Write the token file ``out`` of the text file ``path``, plain or gzip.

    ``out`` appears whole or not at all. Memory is needed for the different tokens of the text
    alone; disk, meanwhile, for two streams of 4 bytes a token.

    Args:
        path: UTF-8, one line for each sentence or name.
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
    _check_paths(Path(path), out)
    reader = _engine.TextReader(tokens == "word")
    counts = np.zeros(0, np.int64)
    with tempfile.TemporaryFile(dir=out.parent) as numbers:
        for block in read_numbers(path, reader):
            numbers.write(block.data)
            counts = add_counts(counts, block)
        check_not_empty(path, reader.n_lines)
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


def _check_paths(path: Path, out: Path) -> None:
    if is_token_file(path):
        raise ValueError(f"{path} is a token file: prepare the text that it was made of")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: there is no directory {out.parent}")
    if out.exists() and out.samefile(path):
        raise ValueError(f"{out}: the token file would replace its text: name another file")


def check_kind(tokens: str) -> None:
    """Raise ValueError for what is not a kind of token."""
    if tokens not in ("char", "word"):
        raise ValueError(f"tokens must be 'char' or 'word', got {tokens!r}")


def check_not_empty(path: str | os.PathLike[str], n_lines: int) -> None:
    """Raise ValueError for a text without a token."""
    if n_lines == 0:
        raise ValueError(f"{os.fspath(path)}: there are no lines to learn from, the text is empty")


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
    tensor = {"dtype": "I32", "shape": [prepared.n_ids], "data_offsets": [0, 4 * prepared.n_ids]}
    header = {"__metadata__": {"pymlp.tokens": json.dumps(fields)}, "ids": tensor}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def is_token_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as safetensors files do: with bytes that no text has."""
    with open(path, "rb") as file:
        start = file.read(9)
    return start[4:] == b"\0\0\0\0{"


def open_token_file(path: str | os.PathLike[str]) -> tuple[TokenStream, Prepared]:
    """The stream of a token file, mapped into memory, and what the file says of itself.

    The ids are not read here: an engine or an operator that meets one outside the vocabulary
    raises.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a token file, is cut short, or another version's.
    """
    name = os.fspath(path)
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if is_token_file(path) and length < size else b""
    if is_token_file(path) and len(header) < length:
        raise ValueError(f"{name}: the token file is cut short: it ends within its header")
    try:
        tables = json.loads(header)
        fields = json.loads(tables["__metadata__"]["pymlp.tokens"])
        (n_ids,) = tables["ids"]["shape"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{name}: not a token file of pymlp: pymlp prepare (or pymlp.data.prepare) writes them"
        ) from None
    if fields["version"] != _VERSION:
        raise ValueError(
            f"{name} is a token file of version {fields['version']}, this pymlp reads version "
            f"{_VERSION}: prepare the text again"
        )
    if size != 8 + length + 4 * n_ids or n_ids < 1:
        raise ValueError(
            f"{name}: the token file is damaged: it should have {8 + length + 4 * n_ids} bytes, it "
            f"has {size}: prepare the text again"
        )
    vocabulary = Vocabulary.from_json(json.dumps(fields["vocabulary"]))
    # Mode "c": nobody else sees writes, and torch takes the array for writable.
    ids = np.memmap(path, "<i4", mode="c", offset=8 + length, shape=(n_ids,))
    stream = TokenStream(
        torch.from_numpy(ids), vocab_size=len(vocabulary), known_digest=fields["sha256"]
    )
    prepared = Prepared(vocabulary, n_ids, fields["n_lines"], fields["n_empty"], fields["sha256"])
    return stream, prepared
