"""The device that is measured: the CPU, or a GPU that everything is moved to.

Time is the wall clock's in both cases, read when the device has done all that was launched. A
sample is many calls with one reading before and one after, so that on a GPU it shows what a loop of
such calls takes: the device's time or that of the launches, whichever is longer.
"""

import subprocess
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_UP_CALLS = 3

_current = torch.device("cpu")


def use(device: torch.device) -> None:
    """Measure this one from now on."""
    global _current
    _current = device
    if device.type == "cuda":
        torch.cuda.set_device(device)


def current() -> torch.device:
    """The one that is measured."""
    return _current


def is_gpu() -> bool:
    """Whether it is not the CPU."""
    return _current.type == "cuda"


def clock() -> float:
    """Seconds, once everything launched so far has been done."""
    if is_gpu():
        torch.cuda.synchronize()
    return time.perf_counter()


def record(step: Callable[[], object], state: Sequence[Tensor]) -> Callable[[], object]:
    """A function that does ``step`` again from a CUDA graph; on the CPU, ``step`` itself.

    Recording needs a few calls; ``state`` is afterwards as it was before.
    """
    if not is_gpu():
        return step
    before = [tensor.detach().clone() for tensor in state]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP_CALLS):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    with torch.no_grad():
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
    return graph.replay


def describe() -> tuple[str | None, str | None]:
    """Name and driver of the GPU; None for the CPU, or where nobody knows."""
    if not is_gpu():
        return None, None
    return torch.cuda.get_device_name(), _driver()


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        run = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.splitlines()[0].strip()
