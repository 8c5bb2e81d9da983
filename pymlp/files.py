"""Replacing files and directories so that a crash leaves the old one or the new one, whole."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol, TypeVar

# Constants of linux/fs.h and fcntl.h.
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of ``path`` when all has gone well.

    A link stays: the file that it points to is replaced. The new file has the mode, and where the
    system permits it the owner, of the old one.

    Raises:
        FileExistsError: ``path`` is a directory, a device or anything else but a regular file.
        OSError: the file cannot be written; the error names ``path``.
    """
    target = Path(os.path.realpath(path))
    old = _regular_file(path)
    temporary = _beside(target, "tmp")
    with naming(path, temporary):
        # The name is random and must be new: nobody can have laid a link there.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666 if old is None else 0o600)
        try:
            with open(descriptor, "wb") as file:
                if old is not None:
                    _set_mode(descriptor, old)
                yield file
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file ``path`` by one with ``content``.

    Raises:
        OSError: as `replacing`.
    """
    with replacing(path) as file:
        file.write(content)


def _regular_file(path: Path) -> os.stat_result | None:
    """The status of the file ``path``; None where there is no file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise FileExistsError(f"{path} is not a regular file and is not replaced: name another")
    return found


def _set_mode(descriptor: int, old: os.stat_result) -> None:
    """Give an open file the owner and the mode of ``old``, as far as the system permits."""
    new = os.fstat(descriptor)
    with suppress(PermissionError):
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            os.fchown(descriptor, old.st_uid, old.st_gid)
    with suppress(PermissionError):
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


@contextmanager
def naming(path: Path | str, temporary: Path | None = None) -> Iterator[None]:
    """Let an OSError that names no file name ``path``, which stands for ``temporary``, too.

    Files in a directory ``temporary`` are named as those in ``path``.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error.filename, int):
            raise
        name = os.fspath(path)
        if error.filename is not None:
            hidden, found = os.fspath(temporary or ""), os.fsdecode(error.filename)
            if not hidden or not f"{found}/".startswith(f"{hidden}/"):
                raise
            name += found[len(hidden) :]
        raise OSError(error.errno, error.strerror, name) from error


class _Items(Sized, Protocol):
    def __getitem__(self: T, index: slice, /) -> T: ...


T = TypeVar("T", bound=_Items)


class GrowingFile:
    """The end of a file that is appended to, from items that stay in memory.

    A write that failed or was interrupted is repaired by the next one: it begins where the last
    good one ended, and nothing is left behind its own end.

    Args:
        count: items that the file holds.
        size: bytes that they take.
    """

    def __init__(self, count: int = 0, size: int = 0) -> None:
        self._good = (count, size)

    def write(self, path: Path, items: T, encode: Callable[[T], bytes]) -> None:
        """Make the file hold ``items`` and nothing else; the items so far must be its first ones.

        Args:
            path: made if it is not there.
            items: all of them.
            encode: the bytes of some items.

        Raises:
            OSError: the file cannot be written; the error names it.
        """
        count, size = self._good
        self._good = (0, 0)  # until all has gone well, no byte of the file is relied on
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        with naming(path), open(os.open(path, flags, 0o666), "wb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size < size or len(items) < count:
                count = size = 0
            content = encode(items[count:])
            _write_all(file.fileno(), content, size)
            size += len(content)
            os.ftruncate(file.fileno(), size)
        self._good = (len(items), size)

    def sync(self, path: Path) -> int:
        """Wait until what was written is on disk; the size of the file in bytes.

        Raises:
            OSError: it is not all there; the next `write` begins anew.
        """
        good, self._good = self._good, (0, 0)
        with naming(path), open(path, "rb+") as file:
            if os.fstat(file.fileno()).st_size != good[1]:
                raise OSError(errno.EIO, "Not all of it was written", os.fspath(path))
            os.fsync(file.fileno())
        self._good = good
        return good[1]


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    rest = memoryview(content)
    while rest:
        done = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[done:], offset + done


# --- directories ----------------------------------------------------------------------------------


def stage_directory(path: Path) -> Path:
    """A new empty directory beside ``path``, to be filled and then given to `put_in_place`."""
    staged = _beside(path, "new")
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path, staged):
        staged.mkdir()
    return staged


def put_in_place(staged: Path, path: Path, *, replace: bool) -> None:
    """Give the directory ``staged`` the name ``path``.

    Args:
        staged: filled.
        path: of the same file system.
        replace: the directory that is at ``path`` goes to ``staged``. Both change places in one
            step where the system can do that. Elsewhere a process that is killed between two steps
            leaves the old directory for `leftovers` to find.

    Raises:
        OSError: ``path`` cannot be replaced, or holds files and ``replace`` is False.
    """
    if not replace:
        os.rename(staged, path)
        return
    os.chmod(staged, stat.S_IMODE(path.stat().st_mode))
    if _exchange(staged, path):
        return
    old = staged.with_suffix(".old")
    try:
        os.rename(path, old)
        os.rename(staged, path)
    finally:
        if not path.exists():
            os.rename(old, path)
    os.rename(old, staged)


def leftovers(path: Path) -> list[Path]:
    """The directories that `stage_directory` and `put_in_place` of killed processes, or of living
    ones, have beside ``path``: those that were to be replaced (``.old``) first."""
    with suppress(OSError):
        pattern = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{16}\.(old|new)")
        names = [name for name in os.listdir(path.parent) if pattern.fullmatch(name)]
        return [path.with_name(name) for name in sorted(names, key=lambda n: (n[-3:] != "old", n))]
    return []


def temporaries(path: Path) -> list[Path]:
    """The files of `replacing`, of killed processes or of living ones, beside ``path``."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"([0-9a-f]{16}\.)?tmp")
    return [path.with_name(name) for name in os.listdir(path.parent) if pattern.fullmatch(name)]


def remove_directory(path: Path) -> None:
    """Remove a directory with all that is in it, as far as that is possible."""
    shutil.rmtree(path, ignore_errors=True)


def _beside(path: Path, kind: str) -> Path:
    """A name in the directory of ``path`` that nobody can guess."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.{kind}")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    names = os.fsencode(one), os.fsencode(other)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), os.fspath(other))
