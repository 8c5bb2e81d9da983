"""Named settings that train a known model: `PRESETS["lecture"]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal


@dataclass(frozen=True)
class Preset:
    """A model and how it is trained.

    Args:
        model: fields of `MLPConfig`; `vocab_size` comes from the data.
        train: fields of `TrainConfig`.
        init: "torch" leaves the parameters as torch.nn draws them, "lecture" calls `lecture_init`,
            "scaled" `scaled_init`, "unigram" the same with the frequencies of train.
    """

    model: Mapping[str, Any]
    train: Mapping[str, Any]
    init: Literal["torch", "lecture", "scaled", "unigram"] = "torch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", MappingProxyType(dict(self.model)))
        object.__setattr__(self, "train", MappingProxyType(dict(self.train)))


PRESETS: dict[str, Preset] = {
    # Small enough to draw: two-dimensional embeddings, 30,000 steps at the constant rate 0.1.
    "lecture-2d": Preset(
        model={"block_size": 3, "n_embd": 2, "n_hidden": 100},
        train={"steps": 30_000, "batch_size": 32, "lr": 0.1, "schedule": "constant"},
        init="lecture",
    ),
    # The lecture's final network: rate 0.1 for the first half of the steps, then 0.01.
    "lecture": Preset(
        model={"block_size": 3, "n_embd": 10, "n_hidden": 200},
        train={
            "steps": 200_000,
            "batch_size": 32,
            "lr": 0.1,
            "schedule": "step",
            "lr_drop_factor": 0.1,
        },
        init="lecture",
    ),
}
