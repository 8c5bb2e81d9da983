"""A model to train, told in one flat record: what sweeps vary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from pymlp.arguments import to_choice
from pymlp.callbacks import Callback
from pymlp.checks import check_dataset, checked_device
from pymlp.config import TrainConfig
from pymlp.data import Dataset
from pymlp.model import INITS, MLP, MLPConfig, seeded_model
from pymlp.presets import PRESETS
from pymlp.trainer import Trainer

DTYPES = ("float32", "float64", "bfloat16", "float16")


@dataclass(frozen=True)
class RunConfig(TrainConfig):
    """Everything that decides a model besides the data: how it is trained, and its sizes.

    The vocabulary and the context length are the data's. ``seed`` is that of the initial parameters
    and of the batches. `dataclasses.replace` varies one.

    ``RunConfig()`` is not what ``pymlp train`` begins from, which is preset "lecture": the preset
    has ``init="lecture"`` and ``schedule="step"`` where the defaults here are "torch" and
    "constant". ``RunConfig.from_preset("lecture")`` trains the same bits as the command.

    Attributes:
        n_embd: width E of an embedding row.
        n_hidden: number H of hidden units.
        direct: connections from the embeddings to the output, as in `MLPConfig`.
        init: ``"torch"``, ``"lecture"``, ``"scaled"`` or ``"unigram"``, as in `Preset`.
        dtype: of the parameters: ``"float32"``, ``"float64"``, ``"bfloat16"`` or ``"float16"``;
            the native engine does the first two.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a field has a value out of its range, or the engine does not do the dtype.
    """

    n_embd: int = 10
    n_hidden: int = 200
    direct: bool = False
    init: str = "torch"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = self._sizes(vocab_size=1, block_size=1)
        for name in ("n_embd", "n_hidden", "direct"):
            self._set(name, getattr(sizes, name))
        for name, known in (("init", INITS), ("dtype", DTYPES)):
            self._set(name, to_choice("RunConfig", name, getattr(self, name), known))
        if self.engine == "native" and self.dtype not in ("float32", "float64"):
            raise ValueError(
                f"RunConfig: engine='native' does float32 and float64, not {self.dtype}: "
                "use engine='auto'"
            )

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> RunConfig:
        """The configuration of one of `PRESETS`, with changes.

        On the same data it trains the same bits as ``pymlp train --preset NAME`` with the same
        flags. The context length and the way of the text are the data's:
        ``PRESETS[name].model["block_size"]`` and ``PRESETS[name].data``.

        Args:
            name: of a preset.
            changes: fields of this class.

        Raises:
            TypeError: a change is no field, or has the wrong type.
            ValueError: there is no such preset, or a change has a value out of its range.

        Example:
            >>> config = pymlp.RunConfig.from_preset("lecture", steps=50_000)
            >>> history = config.trainer(data).fit()
        """
        unknown = sorted(changes.keys() - {field.name for field in fields(cls)})
        if "block_size" in unknown:
            raise TypeError(
                "RunConfig: block_size is the data's: give it to pymlp.data.load or "
                "Dataset.from_lines"
            )
        if unknown:
            raise TypeError(
                f"RunConfig: there is no field {unknown[0]!r}; fields are "
                f"{', '.join(field.name for field in fields(cls))}"
            )
        preset = PRESETS[to_choice("RunConfig", "preset", name, list(PRESETS))]
        sizes = {name: size for name, size in preset.model.items() if name != "block_size"}
        return cls(**{**sizes, **preset.train, "init": preset.init, **changes})

    def trainer(
        self,
        data: Dataset,
        callbacks: Sequence[Callback] = (),
        *,
        device: str | torch.device = "cpu",
    ) -> Trainer:
        """The trainer of this model alone; `train_many` gives the same bits."""
        device = checked_device("RunConfig.trainer", device)
        return Trainer(self.build_model(data).to(device), data, self.train_config(), callbacks)

    def build_model(self, data: Dataset) -> MLP:
        """The model as it is before the first step; torch's global generator stays as it is."""
        check_dataset("RunConfig", data)
        sizes = self._sizes(len(data.vocabulary), data.block_size)
        counts = data.train.counts(len(data.vocabulary)) if self.init == "unigram" else None
        model = seeded_model(sizes, self.seed, self.init, counts)
        return model.to(getattr(torch, self.dtype))

    def _sizes(self, vocab_size: int, block_size: int) -> MLPConfig:
        return MLPConfig(vocab_size, block_size, self.n_embd, self.n_hidden, self.direct)

    def train_config(self) -> TrainConfig:
        """The part that a `Trainer` takes."""
        return TrainConfig(**{f.name: getattr(self, f.name) for f in fields(TrainConfig)})
