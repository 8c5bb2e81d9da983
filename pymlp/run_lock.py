"""The lock of a run directory: one process trains there at a time.

It is a lock of the system (flock) on the file ``.lock``: the system releases it when the process
ends, however it ends. The file says which process holds the lock; what an old one says is stale.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import time
import warnings
import weakref
from pathlib import Path

LOCK = ".lock"

# Others hold the lock for a moment to see whether it is free.
_ATTEMPTS, _PAUSE = 5, 0.01

_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF}


class RunInUseError(OSError):
    """Another process, or another `Trainer` of this one, trains in the run directory."""


class RunLock:
    """The lock of one run directory, held by this process as long as this object lives.

    Made by `acquire`. On a file system without locks nobody is kept out.

    Attributes:
        pid: of the process that holds it; a forked child does not.
    """

    def __init__(self, descriptor: int) -> None:
        self.pid = os.getpid()
        self._key = _key(os.fstat(descriptor))
        self._writer: weakref.ref[object] | None = None
        self._close = weakref.finalize(self, os.close, descriptor)

    @staticmethod
    def acquire(directory: Path) -> RunLock:
        """Take the lock; objects of one process share it.

        Raises:
            RunInUseError: another process holds it.
            OSError: the file cannot be made.
        """
        with _mutex:
            while True:
                descriptor = _open(directory)
                try:
                    lock = _find(descriptor)
                    if lock is None:
                        _lock(descriptor, directory)
                        # The directory may have been replaced after the file was opened.
                        if _is_in(descriptor, directory):
                            _sign(descriptor)
                            lock, descriptor = RunLock(descriptor), -1
                            _held[lock._key] = lock
                    if lock is not None:
                        return lock
                finally:
                    if descriptor >= 0:
                        os.close(descriptor)

    def give(self, writer: object | None, *, to_others: bool = True) -> None:
        """Let ``writer`` be the one object of this process that may write, and no other.

        Raises:
            RunInUseError: another one may, and ``to_others`` says that it is not to be replaced.
        """
        with _mutex:
            present = None if self._writer is None else self._writer()
            if not to_others and present is not None and present is not writer:
                raise RunInUseError("another Trainer of this process makes a run there")
            self._writer = None if writer is None else weakref.ref(writer)

    def check(self, writer: object, directory: Path) -> None:
        """Check that ``writer`` may write.

        Raises:
            RunInUseError: it may not, or the directory is not the one that was locked.
        """
        if self.pid != os.getpid():
            raise RunInUseError(
                f"{directory}: this Trainer belongs to process {self.pid}, and this is process "
                f"{os.getpid()}: make the Trainer in the process that trains"
            )
        if self._writer is None or self._writer() is not writer:
            raise RunInUseError(
                f"{directory}: another Trainer of this process has taken over the run: "
                "go on with that one, or resume the run again"
            )
        try:
            is_other = _key(os.stat(directory / LOCK)) != self._key
        except FileNotFoundError:
            return
        if is_other:
            raise RunInUseError(f"{directory} was replaced by another run: save elsewhere")


_mutex = threading.Lock()
_held: weakref.WeakValueDictionary[tuple[int, int], RunLock] = weakref.WeakValueDictionary()


def holder(directory: Path) -> str | None:
    """A phrase that names the process that holds the lock; None where it is free."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _describe(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return None


def is_free(directory: Path) -> bool:
    """Whether nobody holds the lock for certain; where locks are not supported it is not."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return isinstance(error, FileNotFoundError)  # a living process makes it first
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _release_in_child() -> None:
    """Close what a forked process has inherited: it would hold the locks after their owner."""
    global _mutex
    _mutex = threading.Lock()
    for lock in list(_held.values()):
        lock._close()
    _held.clear()


os.register_at_fork(after_in_child=_release_in_child)


def _open(directory: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(directory / LOCK, flags, 0o666)


def _find(descriptor: int) -> RunLock | None:
    """The lock of the open file that this process holds already."""
    lock = _held.get(_key(os.fstat(descriptor)))
    return lock if lock is not None and lock.pid == os.getpid() else None


def _lock(descriptor: int, directory: Path) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if attempt < _ATTEMPTS - 1:
                time.sleep(_PAUSE)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            warnings.warn(
                f"{directory}: the file system has no locks: take care that no other process "
                "trains there",
                RuntimeWarning,
                stacklevel=2,
            )
            return
    raise RunInUseError(
        f"{directory} is in use: {_describe(descriptor)}: wait for its end, stop it, or choose "
        "another directory"
    )


def _sign(descriptor: int) -> None:
    """Write down who holds the lock; the time is that of the file."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)


def _describe(descriptor: int) -> str:
    found = os.fstat(descriptor)
    words = os.pread(descriptor, 300, 0).decode(errors="replace").split()
    who = f"process {words[0]} on {words[1]}" if len(words) == 2 else "another process"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.st_mtime))
    return f"{who} has been training there since {since}"


def _is_in(descriptor: int, directory: Path) -> bool:
    try:
        return _key(os.stat(directory / LOCK)) == _key(os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _key(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
