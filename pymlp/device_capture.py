"""Launches that are captured once as a CUDA graph and then replayed."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from pymlp._library import ops

# Launches before a graph is captured, which load what kernels need.
_WARM_UP = 3

# While one thread captures on a stream, no other may use it, or wait for the whole device.
_capturing = threading.Lock()


class CapturedLaunch:
    """Calls a function a few times, then captures what it launches, and replays that.

    It is called every time where there are no graphs, while ids are checked, which waits for the
    device, and, after a warning, where it cannot be captured.

    Args:
        device: where.

    Attributes:
        graph: what is replayed; None as long as there is none.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_capturable = device.type == "cuda"
        self._warm = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, launch: Callable[[], None]) -> None:
        """Launch once more.

        Args:
            launch: launches the same kernels on the same memory each time, and waits for nothing.
                It is not kept: that would keep its owner's memory, too.
        """
        if self.graph is None and self._is_capturable and self._warm >= _WARM_UP:
            self._capture(launch)
        if self.graph is not None:
            self.graph.replay()
            return
        self._warm += 1
        with _capture_stream(self._device):
            launch()

    def _capture(self, launch: Callable[[], None]) -> None:
        if _ids_are_checked():
            return
        try:
            self.graph = _captured(launch, self._device)
        except RuntimeError as error:  # nothing has run yet
            self._is_capturable = False
            warnings.warn(
                "pymlp: a training step could not be captured as a CUDA graph, so that its kernels "
                f"are launched one by one, which is slower: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


def _captured(launch: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with (
        _capture_stream(device) as stream,
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        launch()
    return graph


@contextmanager
def _capture_stream(device: torch.device) -> Iterator[torch.cuda.Stream | None]:
    """Launches go to the stream of captures, between what was launched before and what will be.

    Warming up there, too, leaves nothing behind that belongs to another stream.
    """
    if device.type != "cuda":
        yield None
        return
    with _capturing:
        stream, before = _stream(device), torch.cuda.current_stream(device)
        stream.wait_stream(before)
        try:
            with torch.cuda.stream(stream):
                yield stream
        finally:
            before.wait_stream(stream)


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream for captures on a device.

    torch's own stream is on the device of the process's first capture.
    """
    return torch.cuda.Stream(device)


def _ids_are_checked() -> bool:
    before: bool = ops.check_ids(False)
    ops.check_ids(before)
    return before
