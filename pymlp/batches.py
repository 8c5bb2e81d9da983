"""Random batches: the lecture's stream of example indices, drawn many steps at a time."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

# Indices and steps drawn at once: enough to spread the cost of a draw and of a call of the engine.
BLOCK_INDICES = 16384
_BLOCK_STEPS = 8


class _Block(NamedTuple):
    """Steps drawn at once."""

    first: int  # the number of the first
    before: Tensor  # the generator's state
    after: Tensor
    indices: Tensor  # (K, B) int64


class Batches:
    """Indices of the examples of each step, uniform with replacement.

    One draw of (K, B) from a CPU ``torch.Generator`` gives the same stream as K draws of (B,), the
    lecture's ``torch.randint(0, N, (B,), generator=g)``, so steps are drawn in blocks.

    Args:
        n_examples: N, how many examples there are to draw from.
        batch_size: B.
        seed: of the generator.
        at_once: indices drawn at once; only the cost depends on it.
    """

    def __init__(
        self, n_examples: int, batch_size: int, seed: int, at_once: int = BLOCK_INDICES
    ) -> None:
        self._n_examples = n_examples
        self._batch_size = batch_size
        self._at_once = at_once
        # On the CPU, whatever torch's default device is.
        begin = torch.Generator("cpu").manual_seed(seed).get_state()
        # One assignment replaces the block, whose position is the number of the step that asks: an
        # interruption uses up no batch.
        self._block = _Block(0, begin, begin, _none(batch_size))

    def at(self, step: int, limit: int) -> Tensor:
        """The indices of step number ``step`` and the next ones, (K, B) int64, 1 <= K <= ``limit``.

        Args:
            step: of the block drawn last, or the one after it.
            limit: steps at most.
        """
        if step == self._end:
            self._block = self._draw(step, self._block.after)
        position = step - self._block.first
        return self._block.indices[position : position + limit]

    def state_dict(self, step: int) -> dict[str, Tensor]:
        """Generator state before the block of ``step``, and the steps of that block before it."""
        if step == self._end:
            return {"generator": self._block.after, "position": _scalar(0)}
        position = _scalar(step - self._block.first)
        return {"generator": self._block.before, "position": position}

    def load_state_dict(self, state: dict[str, Tensor], step: int) -> None:
        """Continue the stream exactly where ``state_dict`` of ``step`` was called.

        Raises:
            ValueError: as `check_state`.
        """
        check_state(state, step)
        block = self._draw(step - int(state["position"]), state["generator"])
        # Whoever drew more at once may be further on.
        while step > block.first + len(block.indices):
            block = self._draw(block.first + len(block.indices), block.after)
        self._block = block

    @property
    def _end(self) -> int:
        """The number of the step after the block."""
        return self._block.first + len(self._block.indices)

    def _draw(self, first: int, before: Tensor) -> _Block:
        shape = (max(_BLOCK_STEPS, self._at_once // self._batch_size), self._batch_size)
        generator = torch.Generator("cpu")
        generator.set_state(before)
        indices = torch.randint(0, self._n_examples, shape, generator=generator, device="cpu")
        return _Block(first, before, generator.get_state(), indices)


def check_state(state: Mapping[str, Tensor], step: int) -> None:
    """Raise ValueError unless ``state`` can be what `Batches.state_dict` of ``step`` returned."""
    position = int(state["position"])
    if not 0 <= position <= step:
        raise ValueError(
            f"batches.position must be from 0 to the number of steps done, {step}, got {position}"
        )
    try:
        torch.Generator("cpu").set_state(state["generator"])
    except RuntimeError:
        raise ValueError("batches.generator is not the state of a torch.Generator") from None


def _none(batch_size: int) -> Tensor:
    return torch.empty((0, batch_size), dtype=torch.int64, device="cpu")


def _scalar(value: int) -> Tensor:
    return torch.tensor(value, device="cpu")
