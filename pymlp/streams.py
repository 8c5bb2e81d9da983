"""A corpus as a stream of token ids, and examples: stored as a table, or formed from a stream.

A stream holds the ids of all lines one after the other; id 0, the boundary, ends every line. An
example is a position of the stream: the token there, after the T tokens before it. So a stream is
all that training and evaluation keep of a corpus, 4 bytes a token, and it may be a file mapped into
memory. The work is done by csrc/data/stream.h and csrc/engine/batch.cpp.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pymlp import _engine
from pymlp.arguments import to_int

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Tokens looked at in one piece: a stream may be larger than memory.
_TOKENS_AT_ONCE = 2**22


class BadId(NamedTuple):
    """An id that is not in a vocabulary: among which ids, where, and what it is."""

    what: str
    place: list[int]
    id: int


# The digests that `TokenStream.check_digest` has found, by the state of the file.
_DIGESTS: dict[tuple[int, ...], str] = {}


@dataclass(frozen=True)
class MappedFile:
    """The file that a stream is mapped from.

    Args:
        path: absolute.
        inode: device and inode number; who has replaced the file under its name has another.
        n_bytes: length of the file.
        sha256: of the ids, as the file says.
    """

    path: str
    inode: tuple[int, int]
    n_bytes: int
    sha256: str

    def state(self) -> tuple[int, ...] | None:
        """A value that changes when the file is written to; None if its name is another's or gone.

        Raises:
            ValueError: the file has been cut short, so that reading it would end the process.
        """
        try:
            found = os.stat(self.path)
        except OSError:
            return None  # what is mapped stays
        if (found.st_dev, found.st_ino) != self.inode:
            return None
        if found.st_size < self.n_bytes:
            raise ValueError(
                f"{self.path}: the token file had {self.n_bytes} bytes when it was opened and has "
                f"{found.st_size} now: prepare the text again, and load it again"
            )
        return (*self.inode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True, eq=False)
class TokenStream:
    """Token ids one after the other, 0 at the end of every line.

    Args:
        ids: (N,) int32, contiguous; may be memory-mapped.
        reset: whether a context begins where its line begins, as in the lecture, so that everything
            before the nearest boundary reads as 0; else contexts run on across lines, as in Bengio
            et al. (2003). What lies before the stream reads as 0.
        vocab_size: all ids are known to be from 0 to less than this; None if nothing is known.
        file: that the ids are mapped from, if they are.

    Raises:
        ValueError: ``ids`` are not a contiguous int32 vector.
    """

    ids: Tensor
    reset: bool = True
    vocab_size: int | None = None
    file: MappedFile | None = None

    def __post_init__(self) -> None:
        shape, dtype = tuple(self.ids.shape), self.ids.dtype
        if len(shape) != 1 or dtype != torch.int32 or not self.ids.is_contiguous():
            raise ValueError(
                f"TokenStream: ids must be a contiguous int32 vector, got {dtype} of shape {shape}"
            )

    def __len__(self) -> int:
        """Number of ids, boundaries included."""
        return len(self.ids)

    def __repr__(self) -> str:
        context = "reset" if self.reset else "across"
        return f"TokenStream({len(self):,} ids, context {context})"

    def examples(self, block_size: int, begin: int = 0, end: int | None = None) -> StreamExamples:
        """One example for each position from ``begin`` to ``end``, contexts of ``block_size``."""
        return StreamExamples(self, block_size, begin, len(self) if end is None else end)

    def parts(self, begin: int = 0, end: int | None = None) -> Iterator[Tensor]:
        """The ids in order, in views of a few million."""
        return iter(self.readable[begin:end].split(_TOKENS_AT_ONCE))

    @property
    def readable(self) -> Tensor:
        """The ids, after a look at the file that they are mapped from.

        Raises:
            ValueError: it has been cut short.
        """
        if self.file is not None:
            self.file.state()
        return self.ids

    @property
    def digest(self) -> str:
        """SHA-256 of the ids, as little-endian int32; of a mapped file, what the file says."""
        return self._computed_digest() if self.file is None else self.file.sha256

    def check_digest(self) -> None:
        """Compare a mapped file with what it says of itself, once for each state of the file.

        Raises:
            ValueError: the ids are not the ones that were prepared, or the file was cut short.
        """
        if self.file is None:
            return
        state = self.file.state()
        found = _DIGESTS.get(state or ()) or self._computed_digest()
        if state is not None:
            _DIGESTS[state] = found
        if found != self.file.sha256:
            raise ValueError(
                f"{self.file.path}: the token file has been changed since it was prepared "
                "(the digest of its ids differs): prepare the text again"
            )

    def _computed_digest(self) -> str:
        hasher = hashlib.sha256()
        for part in self.parts():
            hasher.update(part.cpu().numpy().astype("<i4", copy=False).data)
        return hasher.hexdigest()


class Examples:
    """Contexts and what follows them, as a table.

    Args:
        tokens: (N, T) int64 or int32 ids.
        targets: (N,) ids of the same dtype.

    Raises:
        ValueError: shapes or dtypes differ from these.
    """

    def __init__(self, tokens: Tensor, targets: Tensor) -> None:
        shapes = tuple(tokens.shape), tuple(targets.shape)
        if tokens.dim() != 2 or shapes[1] != shapes[0][:1]:
            raise ValueError(f"Examples: expected shapes (N, T) and (N,), got {shapes}")
        dtypes = tokens.dtype, targets.dtype
        if dtypes[0] != dtypes[1] or dtypes[0] not in (torch.int64, torch.int32):
            raise ValueError(f"Examples: expected two of int64 or two of int32, got {dtypes}")
        self._tokens = tokens
        self._targets = targets
        self._copies: dict[torch.device, Examples] = {}

    @property
    def tokens(self) -> Tensor:
        """The contexts (N, T)."""
        return self._tokens

    @property
    def targets(self) -> Tensor:
        """The tokens that follow the contexts (N,)."""
        return self._targets

    @property
    def block_size(self) -> int:
        """Length T of the contexts."""
        return self._tokens.shape[1]

    def __len__(self) -> int:
        """Number N of examples."""
        return len(self._targets)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} examples, block_size {self.block_size})"

    def __getitem__(
        self, index: int | slice | Tensor | Sequence[int] | NDArray[np.integer]
    ) -> tuple[Tensor, Tensor]:
        """One example, tokens (T,) and target (); or several, (N, T) and (N,).

        Args:
            index: from -N to N - 1; a slice; or a tensor, list or array of indices from 0, as
                for `take`.

        Raises:
            TypeError: the indices are no whole numbers.
            IndexError: there is no such example.
        """
        if isinstance(index, Tensor) and index.dim() > 0:
            return self.take(index)
        if isinstance(index, (list, np.ndarray)) and np.ndim(index) > 0:
            rows = np.asarray(index, np.int64 if len(index) == 0 else None)
            if rows.dtype.kind not in "iu":
                raise TypeError(f"examples: indices must be integers, got {rows.dtype}")
            return self.take(torch.from_numpy(rows.astype(np.int64)))
        n = len(self)
        if isinstance(index, slice):
            return self.take(torch.arange(n, device="cpu")[index])
        at = operator.index(index)  # type: ignore[arg-type]
        if not -n <= at < n:
            raise IndexError(f"examples: index {at} is not in the range {-n} to {n - 1}")
        return self.take(torch.tensor(at % n, device="cpu"))

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The examples with these indices (...): tokens (..., T) and targets (...)."""
        # index_select is cheaper than indexing, and starts no threads for a few rows.
        rows = indices.flatten().to(self._targets.device)
        tokens = self._tokens.index_select(0, rows).view(*indices.shape, self.block_size)
        return tokens, self._targets.index_select(0, rows).view(indices.shape)

    def parts(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples in order, ``size`` at a time: tokens (n, T) and targets (n,)."""
        return zip(self._tokens.split(size), self._targets.split(size), strict=True)

    def counts(self, vocab_size: int) -> Tensor:
        """How often each id is a target: (vocab_size,) int64."""
        return self._targets.long().bincount(minlength=vocab_size)

    def to(self, device: torch.device) -> Examples:
        """The same examples on another device: one copy for all that ask for it."""
        if device == self._targets.device:
            return self
        if device not in self._copies:
            self._copies[device] = Examples(self._tokens.to(device), self._targets.to(device))
        return self._copies[device]

    def native(self) -> _engine.TrainingData:
        """The table that the native engine reads the examples from; only on the CPU."""
        return _engine.TrainingData.table(
            self._tokens.contiguous().long().numpy(), self._targets.contiguous().long().numpy()
        )

    def find_outside(self, vocab_size: int) -> BadId | None:
        """The first id that is not from 0 to less than ``vocab_size``."""
        for what, ids in (("tokens", self._tokens), ("targets", self._targets)):
            wrong = (ids < 0) | (ids >= vocab_size)
            if wrong.any():
                place = wrong.nonzero()[0].tolist()
                return BadId(what, place, int(ids[tuple(place)]))
        return None


class StreamExamples(Examples):
    """Examples formed from a stream when they are asked for: example i is position ``begin`` + i.

    Args:
        stream: on any device.
        block_size: length T of the contexts, which may begin before ``begin``.
        begin, end: the positions that are examples.

    Raises:
        TypeError: ``block_size`` is not an int.
        ValueError: ``block_size`` is below 1, or not 0 <= begin <= end <= len(stream).
    """

    def __init__(self, stream: TokenStream, block_size: int, begin: int, end: int) -> None:
        self._block_size = to_int("examples", "block_size", block_size, 1)
        if not 0 <= begin <= end <= len(stream):
            raise ValueError(
                f"examples: positions must ascend within 0 to {len(stream)}, got {begin} to {end}"
            )
        self.stream = stream
        self.begin = begin
        self.end = end
        self._copies: dict[torch.device, Examples] = {}

    @property
    def tokens(self) -> Tensor:
        """The contexts (N, T) int64, made anew each time."""
        return self._contexts(self.begin, self.end)

    @property
    def targets(self) -> Tensor:
        """The tokens that follow the contexts (N,) int64, made anew each time."""
        return self._targets_of(self.begin, self.end)

    @property
    def block_size(self) -> int:
        """Length T of the contexts."""
        return self._block_size

    def __len__(self) -> int:
        """Number N of examples."""
        return self.end - self.begin

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The examples with these indices (...): tokens (..., T) and targets (...), int64."""
        ids = self.stream.readable
        if not ids.is_cpu:
            positions = indices.to(ids.device) + self.begin
            return _torch_contexts(self.stream, positions, self.block_size), ids[positions].long()
        tokens, targets = _engine.examples_at(
            ids.numpy(), self.stream.reset, self.begin, self.end, indices.contiguous().numpy(),
            self.block_size,
        )  # fmt: skip
        shape = indices.shape
        return torch.from_numpy(tokens).view(*shape, self.block_size), torch.from_numpy(
            targets
        ).view(shape)

    def parts(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples in order, ``size`` at a time: tokens (n, T) and targets (n,), int64."""
        for begin in range(self.begin, self.end, size):
            end = min(begin + size, self.end)
            yield self._contexts(begin, end), self._targets_of(begin, end)

    def counts(self, vocab_size: int) -> Tensor:
        """How often each id is a target: (vocab_size,) int64."""
        total = torch.zeros(vocab_size, dtype=torch.int64, device=self.stream.ids.device)
        for part in self.stream.parts(self.begin, self.end):
            total += part.bincount(minlength=vocab_size)
        return total

    def to(self, device: torch.device) -> Examples:
        """The same on another device, which gets the part of the stream they need, once."""
        if self.stream.ids.device == device:
            return self
        start = max(0, self.begin - self.block_size)
        if device not in self._copies:
            ids = self.stream.readable[start : self.end].to(device)
            stream = replace(self.stream, ids=ids, file=None)
            self._copies[device] = stream.examples(self.block_size, self.begin - start)
        return self._copies[device]

    def native(self) -> _engine.TrainingData:
        """The stream that the native engine reads the examples from; only on the CPU."""
        return _engine.TrainingData.stream(
            self.stream.readable.numpy(), self.begin, self.end, self.stream.reset
        )

    def find_outside(self, vocab_size: int) -> BadId | None:
        """The first id that is not from 0 to less than ``vocab_size``, context of others or not."""
        known = self.stream.vocab_size
        if known is not None and known <= vocab_size:
            return None
        position = 0
        for part in self.stream.parts(end=self.end):
            wrong = (part < 0) | (part >= vocab_size)
            if wrong.any():
                first = int(wrong.nonzero()[0])
                return BadId("stream", [position + first], int(part[first]))
            position += len(part)
        return None

    def _contexts(self, begin: int, end: int) -> Tensor:
        ids, reset = self.stream.readable, self.stream.reset
        if not ids.is_cpu:
            positions = torch.arange(begin, end, device=ids.device)
            return _torch_contexts(self.stream, positions, self.block_size)
        return torch.from_numpy(_engine.contexts(ids.numpy(), reset, begin, end, self.block_size))

    def _targets_of(self, begin: int, end: int) -> Tensor:
        ids = self.stream.readable[begin:end]
        # numpy starts no threads, which beside other processes wait longer than they work.
        return torch.from_numpy(ids.numpy().astype(np.int64)) if ids.is_cpu else ids.long()


def _torch_contexts(stream: TokenStream, positions: Tensor, block_size: int) -> Tensor:
    """The contexts (..., T) before ``positions`` (...), where the native code cannot form them."""
    at = positions[..., None] + torch.arange(-block_size, 0, device=positions.device)
    tokens = stream.ids[at.clamp(min=0)].long()
    inside = at >= 0
    if stream.reset:
        # From the position backwards, up to the first boundary.
        inside = (inside & (tokens != 0)).flip(-1).cumprod(-1).flip(-1)
    return tokens * inside
