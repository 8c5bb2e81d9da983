"""The measurements of a training run."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
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
    """The measurements of a training run.

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


def parse_records(lines: Sequence[bytes], steps: int) -> list[dict[str, Any]]:
    """The records of the lines of ``metrics.jsonl`` of a run that has done ``steps``.

    Raises:
        ValueError: a line is no record, or has a step that is out of order.
    """
    records, last = [], 0
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from None
        if not _is_record(record) or not last <= record["step"] <= steps:
            raise ValueError(
                f"line {number}: expected an object of numbers with a step from {last} to {steps} "
                f"and loss or dev_loss, got {line[:80].decode(errors='replace')}"
            )
        last = record["step"]
        records.append(record)
    return records


def _is_record(record: object) -> bool:
    return (
        isinstance(record, dict)
        and type(record.get("step")) is int
        and all(type(value) in (int, float) for value in record.values())
        and ("loss" in record or math.isfinite(record.get("dev_loss", math.nan)))
    )
