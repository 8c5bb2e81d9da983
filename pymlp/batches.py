"""Random batches: the lecture's stream of example indices, drawn many steps at a time."""

import torch
from torch import Tensor

# Indices and steps drawn at once: enough to spread the cost of a draw and of a call of the engine.
BLOCK_INDICES = 16384
_BLOCK_STEPS = 8


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
        self._generator = torch.Generator().manual_seed(seed)
        self._start = self._generator.get_state()
        self._block = torch.empty((0, batch_size), dtype=torch.int64)
        self._position = 0

    def take(self, limit: int) -> Tensor:
        """The indices of the next steps, (K, B) int64 with 1 <= K <= ``limit``."""
        if self._position == len(self._block):
            self._draw()
        rows = self._block[self._position : self._position + limit]
        self._position += len(rows)
        return rows

    def give_back(self, count: int) -> None:
        """Take back the last ``count`` steps of the last `take`."""
        self._position -= count

    def state_dict(self) -> dict[str, Tensor]:
        """Generator state before the current block, and the steps taken from that block."""
        if self._position == len(self._block):
            return {"generator": self._generator.get_state(), "position": torch.tensor(0)}
        return {"generator": self._start, "position": torch.tensor(self._position)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue the stream exactly where ``state_dict`` was called."""
        self._generator.set_state(state["generator"])
        position = int(state["position"])
        self._draw()
        # Whoever drew more at once may be further on.
        while position > len(self._block):
            position -= len(self._block)
            self._draw()
        self._position = position

    def _draw(self) -> None:
        rows = max(_BLOCK_STEPS, self._at_once // self._batch_size)
        self._start = self._generator.get_state()
        self._block = torch.randint(
            0, self._n_examples, (rows, self._batch_size), generator=self._generator
        )
        self._position = 0
