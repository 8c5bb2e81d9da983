"""Named settings that train a known model: `PRESETS["lecture"]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
        data: fields of `pymlp.data.DataConfig`; empty for the lecture's way.
    """

    model: Mapping[str, Any]
    train: Mapping[str, Any]
    init: Literal["torch", "lecture", "scaled", "unigram"] = "torch"
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("model", "train", "data"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


# Bengio et al. (2003) on Brown: words met more than 3 times, and the corpus cut as it stands.
_AS_THE_PAPER = {"tokens": "word", "min_count": 4, "split": "800000,200000,rest"}

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
    # The paper's MLP10 (Bengio et al., 2003, table 1), for a corpus of words: order 5, no direct
    # connections. The paper steps after every example, at 1e-3 / (1 + 1e-8 t) after t examples, for
    # 20 passes over 800,000 words. Here the gradient is the mean of 256 examples: 256 times the
    # rate moves as far for each example, with the same weight decay, and r counts 256 at a time.
    "bengio": Preset(
        data=_AS_THE_PAPER,
        model={"block_size": 4, "n_embd": 30, "n_hidden": 100},
        train={
            "steps": 65_000,
            "batch_size": 256,
            "lr": 0.256,
            "schedule": "inverse",
            "lr_decay": 2.56e-6,
            "weight_decay": 1e-4,
            "decay_biases": False,
            "eval_every": 3_250,  # about a pass
            "eval_train": "sample",
            "checkpoint_every": 3_250,
            "patience": 3,
        },
        init="scaled",
    ),
    # The best of a few tried on Brown within ten minutes on two cores: a longer context and wider
    # layers than the paper's, held in check by dropout.
    "word-best": Preset(
        data=_AS_THE_PAPER,
        model={"block_size": 10, "n_embd": 128, "n_hidden": 256},
        train={
            "steps": 10_500,
            "batch_size": 512,
            "lr": 0.002,
            "schedule": "cosine",
            "warmup_steps": 500,
            "optimizer": "adamw",
            "weight_decay": 0.2,
            "decay_biases": False,
            "dropout": 0.35,
            "max_grad_norm": 1.0,
            "eval_every": 1_632,  # about a pass
            "eval_train": "sample",
            "checkpoint_every": 1_632,
        },
        init="unigram",
    ),
}
