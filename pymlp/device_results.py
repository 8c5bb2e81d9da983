"""The results of steps that the device notes, and how they come to the host."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from pymlp.steps import Steps


class DeviceResults:
    """The results of steps on the device, which counts them: Python may be interrupted.

    Args:
        counter: (1,) int64, what is counted on.
        losses: (K,) float64.
        norms: (K,) float64; None if nobody wants to know.
    """

    def __init__(self, counter: Tensor, losses: Tensor, norms: Tensor | None) -> None:
        self._counter, self._losses, self._norms = counter, losses, norms
        self._fetched: tuple[int, Tensor, Tensor | None] | None = None

    def begin(self) -> None:
        """Steps are to be launched: what was fetched before is old."""
        self._fetched = None

    def fetch(self) -> tuple[int, Tensor, Tensor | None]:
        """Counter, losses and norms on the host, after what was launched before."""
        if self._fetched is None:
            counted = int(self._counter)
            norms = None if self._norms is None else self._norms.cpu()
            self._fetched = counted, self._losses.cpu(), norms
        return self._fetched

    def note(self, steps: Steps, start: int, before: int) -> None:
        """Note what was done from step ``start`` on, when the counter was at ``before``.

        It may be done again, after an interruption: the count is written last.
        """
        counted, losses, norms = self.fetch()
        count = counted - before
        done = slice(start, start + count)
        steps.losses[done] = losses[:count]
        if steps.grad_norms is not None and norms is not None:
            steps.grad_norms[done] = norms[:count]
        steps.counter[0] = start + count


def wait(launched: Iterable[DeviceResults]) -> None:
    """Until the device has done what was launched before, and its results are on the host.

    An exception from a signal handler, such as KeyboardInterrupt, is raised here, before anybody
    has begun to note what was done.
    """
    for results in launched:
        results.fetch()
