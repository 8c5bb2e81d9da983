"""Peak memory of a task: what the operating system counts, in a process of its own.

The resident set is the one measure that sees every allocator alike: torch's, a library's own
scratch, and XLA's. A fork server that has imported torch and run nothing makes a clean process in
milliseconds. In it the task first runs at a small size, which loads code and starts threads; then
the inputs are made, and the peak is read over the first calls at full size, so scratch that stays
allocated counts. Providers that compile run once at full size before that, since the compiler
needs more memory than what it makes. Linux with glibc only: others have no peak that can be reset.
On a GPU it is torch's own allocator that is asked (`device_peak`).
"""

import ctypes
import gc
import multiprocessing
import platform
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from .harness import Builder, Case

CALLS = 3
SMALL_BATCH = 8
COMPILED = ("compile", "jax")
# These keep the memory of a recorded step for good, which no peak of later calls shows.
RECORDED = ("reduce-overhead", "captured")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_M_MMAP_THRESHOLD = -3  # of mallopt(3)
_MAPPED_BYTES = 64 * 1024


def available() -> bool:
    """Whether this system can tell."""
    return platform.libc_ver()[0] == "glibc" and _STATUS.exists() and _CLEAR.exists()


class Meter:
    """Measures peak memory in processes forked from one that has imported torch alone.

    Args:
        find_builder: picklable; gives the builder for (case, provider).
        threads: what torch may use in the measured process.
    """

    def __init__(self, find_builder: Callable[[Case, str], Builder], threads: int) -> None:
        self._find_builder = find_builder
        self._threads = threads
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["torch"])

    def peak(self, case: Case, provider: str) -> int | None:
        """Peak bytes of the task's own, None where the system cannot tell.

        Raises:
            RuntimeError: the process died or the task failed in it.
        """
        if not available():
            return None
        receiver, sender = self._context.Pipe(duplex=False)
        arguments = (sender, self._find_builder, case, provider, self._threads)
        process = self._context.Process(target=_child, args=arguments)
        process.start()
        sender.close()
        try:
            answer = receiver.recv()
        except EOFError:
            answer = "the process died"
        process.join()
        if isinstance(answer, str):
            raise RuntimeError(f"measuring memory: {answer}")
        return int(answer)


def _child(
    sender: Connection,
    find_builder: Callable[[Case, str], Builder],
    case: Case,
    provider: str,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    # Larger blocks go back to the system when freed: a peak of live bytes, not of heap fragments.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
    try:
        sender.send(_peak(find_builder(case, provider), case, provider in COMPILED))
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}")


def _peak(build: Builder, case: Case, compiled: bool) -> int:
    if not compiled:
        build(replace(case, batch_size=min(SMALL_BATCH, case.batch_size))).run()
    task = build(case)
    if compiled:
        task.run()
    _release_free_memory()
    _CLEAR.write_text("5")  # resets VmHWM to VmRSS, see proc(5)
    before = _status_bytes("VmRSS")
    for _ in range(CALLS):
        task.run()
    return max(0, _status_bytes("VmHWM") - before)


def device_peak(build: Builder, case: Case, provider: str) -> int | None:
    """Peak bytes of torch's allocator over calls of a task that is warm, its inputs aside."""
    if provider in RECORDED:
        return None
    task = build(case)
    task.run()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in range(CALLS):
        task.run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _release_free_memory() -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {field}")
