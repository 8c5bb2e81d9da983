"""Random batches: the lecture's stream of example indices, drawn many steps at a time."""

from typing import NamedTuple

import torch
from torch import Tensor

# Indices and steps drawn at once: enough to spread the cost of a draw and of a call of the engine.
BLOCK_INDICES = 16384
_BLOCK_STEPS = 8


class _Block(NamedTuple):
    """Steps drawn at once."""

    before: Tensor  # the generator's state
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
        self._generator = torch.Generator("cpu").manual_seed(seed)
        nothing = torch.empty((0, batch_size), dtype=torch.int64, device="cpu")
        self._block = _Block(self._generator.get_state(), nothing)
        self._position = 0

    def peek(self, limit: int) -> Tensor:
        """The indices of the next steps, (K, B) int64 with 1 <= K <= ``limit``.

        The same again until `advance` is called: whoever is interrupted has used up none.
        """
        if self._position == len(self._block.indices):
            self._draw()
        return self._block.indices[self._position : self._position + limit]

    def advance(self, count: int) -> None:
        """Go on after the first ``count`` steps of what `peek` returned."""
        self._position += count

    def state_dict(self) -> dict[str, Tensor]:
        """Generator state before the current block, and the steps used up of that block."""
        if self._position == len(self._block.indices):
            return {"generator": self._generator.get_state(), "position": _scalar(0)}
        return {"generator": self._block.before, "position": _scalar(self._position)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue the stream exactly where ``state_dict`` was called."""
        self._generator.set_state(state["generator"])
        position = int(state["position"])
        self._draw()
        # Whoever drew more at once may be further on.
        while position > len(self._block.indices):
            position -= len(self._block.indices)
            self._draw()
        self._position = position

    def _draw(self) -> None:
        shape = (max(_BLOCK_STEPS, self._at_once // self._batch_size), self._batch_size)
        before = self._generator.get_state()
        try:
            indices = torch.randint(
                0, self._n_examples, shape, generator=self._generator, device="cpu"
            )
            self._block, self._position = _Block(before, indices), 0
        except BaseException:  # an interruption among them: the same steps have to come again
            self._generator.set_state(before)
            raise


def _scalar(value: int) -> Tensor:
    return torch.tensor(value, device="cpu")
