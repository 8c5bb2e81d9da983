"""What a training run measured."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


class Evaluation(NamedTuple):
    """Losses in nats after ``step`` updates, over train and dev.

    Dev is evaluated whole, train as `TrainConfig.eval_train` says; it is nan where it was left out.
    """

    step: int
    train: float
    dev: float


@dataclass(frozen=True)
class History:
    """What a training run measured.

    Attributes:
        losses: (S,) float64, the batch loss of each step before its update, in nats.
        grad_norms: (S,) float64, the norm of the gradient of each step before clipping, nan for
            steps before a resumption; None unless ``TrainConfig.log_grad_norm``.
        evals: the evaluations, by step.
        best: the one with the lowest dev loss.
        seconds: time spent in training steps by this process; evaluations and checkpoints not
            counted.
        us_per_step: microseconds per step of this process, nan if it made none.
    """

    losses: Tensor
    grad_norms: Tensor | None
    evals: list[Evaluation]
    best: Evaluation | None
    seconds: float
    us_per_step: float

    def __repr__(self) -> str:
        parts = [f"{len(self.losses):,} steps", f"{len(self.evals):,} evaluations"]
        if self.evals:
            last = self.evals[-1]
            parts.append(f"train loss {last.train:.4f}, dev loss {last.dev:.4f}")
        if self.best is not None:
            parts.append(f"best dev loss {self.best.dev:.4f} at step {self.best.step:,}")
        return f"History({', '.join(parts)}, {self.us_per_step:,.1f} us per step)"


def evaluations(records: Iterable[Mapping[str, Any]]) -> list[Evaluation]:
    """The evaluations among the records of a run's ``metrics.jsonl``."""
    return [
        Evaluation(record["step"], record.get("train_loss", math.nan), record["dev_loss"])
        for record in records
        if "dev_loss" in record
    ]
