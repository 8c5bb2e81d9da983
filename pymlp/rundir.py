"""The run directory: everything a training run leaves behind.

    config.toml         the configuration of model and trainer, and which data
    vocab.json          the vocabulary
    state.safetensors   the checkpoint: parameters, average, best ones, optimizer, batches, step
    metrics.jsonl       one JSON object a line: {step, lr, loss} or {step, train_loss, dev_loss}
    losses.f64          the loss of every step, little-endian float64
    model.safetensors   the parameters of the checkpoint; their average, if the run keeps one
    best.safetensors    the parameters with the lowest dev loss so far

A checkpoint comes into being at one moment: when ``state.safetensors`` is replaced. What was
appended to other files before counts only up to the lengths that the state implies, and what is
derived from the state is written after it. So a process killed at any moment leaves the old
checkpoint or the new one whole, and `RunDirectory.rewind` brings the other files in step with it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pymlp.config import TrainConfig
from pymlp.data import Vocabulary
from pymlp.files import put_in_place, stage_directory, write_atomically
from pymlp.model import MLP, MLPConfig

_FORMAT = 1
_CONFIG, _VOCABULARY, _STATE = "config.toml", "vocab.json", "state.safetensors"
_METRICS, _LOSSES = "metrics.jsonl", "losses.f64"
_MODEL, _BEST = "model.safetensors", "best.safetensors"

# Settings that the first runs of this format do not have.
_ADDED = {
    *("direct", "lr_decay", "decay_biases", "label_smoothing", "z_loss", "dropout"),
    *("eval_train", "sparse_embedding", "sampled_softmax"),
}

Record = Mapping[str, Any]
T = TypeVar("T", MLPConfig, TrainConfig)


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a training run.

    Attributes:
        losses: (S,) float64, the loss of each of the S steps done.
        tensors: by name; what stands before the first dot is ``model``, ``average``, ``best``,
            ``optimizer`` or ``batches``.
        info: what else the trainer has to know again, as JSON.
    """

    losses: Tensor
    tensors: Mapping[str, Tensor]
    info: Record

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix``, named without it."""
        start = len(prefix) + 1
        return {
            name[start:]: tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }


class RunDirectory:
    """Reads and writes one run directory; made by `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = 0, 0

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        config: Record,
        vocabulary: Vocabulary,
        checkpoint: Checkpoint,
        metrics: Sequence[Record] = (),
        *,
        overwrite: bool = False,
    ) -> RunDirectory:
        """A new run in ``path``; it appears there whole, or not at all.

        Args:
            path: the directory; its parents are made.
            config: tables of ``config.toml``; values that are None are left out.
            vocabulary: of the model.
            checkpoint: the first one.
            metrics: the records so far.
            overwrite: replace the run that is in ``path``.

        Raises:
            FileExistsError: see `check_vacant`.
        """
        path = Path(path)
        check_vacant(path, overwrite=overwrite)
        staged = cls(stage_directory(path))
        staged.write_config(config)
        write_atomically(staged.path / _VOCABULARY, vocabulary.to_json().encode())
        staged.write_metrics(metrics)
        staged.commit(checkpoint)
        put_in_place(staged.path, path)
        run = cls(path)
        run._known = staged._known
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """The run in ``path``.

        Raises:
            FileNotFoundError: there is none.
        """
        if not _holds_run(Path(path)):
            raise FileNotFoundError(
                f"no run in {os.fspath(path)}: expected a directory with {_CONFIG} and {_STATE}, "
                "as training writes it"
            )
        return cls(Path(path))

    # --- writing ----------------------------------------------------------------------------------

    def write_config(self, config: Record) -> None:
        """Replace ``config.toml``."""
        import tomli_w

        tables = {
            name: {key: value for key, value in table.items() if value is not None}
            for name, table in config.items()
        }
        write_atomically(self.path / _CONFIG, tomli_w.dumps(tables).encode())

    def write_metrics(self, records: Sequence[Record]) -> None:
        """Make ``metrics.jsonl`` hold these records; they are lost if no `commit` follows."""
        count, size = self._known
        text = "".join(json.dumps(record) + "\n" for record in records[count:]).encode()
        path = self.path / _METRICS
        path.touch()
        with open(path, "r+b") as file:
            file.seek(size)
            file.write(text)
            file.truncate()
        self._known = len(records), size + len(text)

    def commit(self, checkpoint: Checkpoint) -> None:
        """Make ``checkpoint`` the one that `rewind` returns to."""
        from safetensors.torch import save

        metadata = {
            "format": _FORMAT,
            "steps": len(checkpoint.losses),
            "metrics_bytes": _sync(self.path / _METRICS),
            "info": checkpoint.info,
        }
        self._append_losses(checkpoint.losses)
        tensors = {name: _savable(tensor) for name, tensor in checkpoint.tensors.items()}
        # One metadata key: safetensors writes several in no fixed order.
        state = save(tensors, metadata={"pymlp": json.dumps(metadata)})
        write_atomically(self.path / _STATE, state)
        self._write_derived(checkpoint)

    def rewind(self) -> Checkpoint:
        """Drop everything written after the last `commit` and return that checkpoint."""
        checkpoint = self.checkpoint()
        self.metrics()  # raises, while nothing is changed, where the file is too short
        os.truncate(self.path / _METRICS, self._state()[0]["metrics_bytes"])
        os.truncate(self.path / _LOSSES, checkpoint.losses.nbytes)
        self._known = len(self.metrics()), self._state()[0]["metrics_bytes"]
        self._write_derived(checkpoint)
        return checkpoint

    def _append_losses(self, losses: Tensor) -> None:
        path = self.path / _LOSSES
        path.touch()
        with open(path, "r+b") as file:
            known = os.fstat(file.fileno()).st_size // losses.element_size()
            file.seek(known * losses.element_size())
            file.write(losses[known:].numpy().astype("<f8").tobytes())
            file.flush()
            os.fsync(file.fileno())

    def _write_derived(self, checkpoint: Checkpoint) -> None:
        from safetensors.torch import save

        current = checkpoint.group("average") or checkpoint.group("model")
        for tensors, name in ((current, _MODEL), (checkpoint.group("best"), _BEST)):
            if tensors:
                savable = {name: _savable(tensor) for name, tensor in tensors.items()}
                write_atomically(self.path / name, save(savable))

    # --- reading ----------------------------------------------------------------------------------

    def config(self) -> dict[str, dict[str, Any]]:
        """The tables of ``config.toml``: data, model and train.

        Raises:
            ValueError: it is not such a file.
        """
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        path = self.path / _CONFIG
        try:
            config = tomllib.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        for table in ("data", "model", "train"):
            if not isinstance(config.get(table), dict):
                raise ValueError(f"{path}: table [{table}] is missing")
        return config

    def model_config(self) -> MLPConfig:
        """The sizes of the model.

        Raises:
            ValueError: they are not in ``config.toml``.
        """
        return self._parse(MLPConfig, self.config()["model"])

    def train_config(self, steps: int | None = None) -> TrainConfig:
        """How the model is trained, with ``steps`` instead of the run's own if they are given.

        Raises:
            ValueError: it is not in ``config.toml``.
        """
        table = self.config()["train"]
        return self._parse(TrainConfig, table if steps is None else table | {"steps": steps})

    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the model.

        Raises:
            ValueError: it is not in ``vocab.json``.
        """
        path = self.path / _VOCABULARY
        try:
            return Vocabulary.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def checkpoint(self) -> Checkpoint:
        """The last checkpoint; may be read while training goes on.

        Raises:
            ValueError: the files are damaged, or another version's.
        """
        metadata, tensors = self._state()
        content = _read_start(self.path / _LOSSES, 8 * metadata["steps"])
        losses = np.frombuffer(content, dtype="<f8").astype(np.float64)
        return Checkpoint(torch.from_numpy(losses), tensors, metadata["info"])

    def metrics(self) -> list[dict[str, Any]]:
        """The records of ``metrics.jsonl`` up to the last checkpoint.

        Raises:
            ValueError: they are not there.
        """
        path = self.path / _METRICS
        lines = _read_start(path, self._state()[0]["metrics_bytes"]).splitlines()
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def model(self, *, best: bool = False) -> MLP:
        """The model with the parameters of the last checkpoint, or the ``best`` ones, on the CPU.

        Those of a run with ``TrainConfig.average`` are averages.

        Raises:
            FileNotFoundError: ``best``, and nothing has been evaluated yet.
            ValueError: the file is damaged, or of another model.
        """
        path = self.path / (_BEST if best else _MODEL)
        if best and not path.exists():
            raise FileNotFoundError(f"no {path}: the run has not been evaluated yet")
        return self.build_model(_read_tensors(path)[1])

    def build_model(self, tensors: Mapping[str, Tensor]) -> MLP:
        """The model of ``config.toml`` with ``tensors`` as its parameters.

        Raises:
            ValueError: they do not fit.
        """
        # A module on the meta device is filled without drawing from the global generator.
        with torch.device("meta"):
            model = MLP(self.model_config())
        try:
            model.load_state_dict(tensors, assign=True)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.path}: not the model of {_CONFIG}: {reason}") from None
        return model

    def _parse(self, kind: type[T], table: Record) -> T:
        path = self.path / _CONFIG
        # Settings that are None are not written. Any other that is missing must not be made up,
        # but for those that came later, whose default is what runs without them did.
        for field in fields(kind):
            expected = field.default is not None and field.name not in _ADDED
            if field.name not in table and expected:
                raise ValueError(f"{path}: {field.name} is missing")
        try:
            return kind(**table)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from None

    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Metadata and tensors of the state file, of one and the same checkpoint."""
        path = self.path / _STATE
        texts, tensors = _read_tensors(path)
        if "pymlp" not in texts:
            raise ValueError(f"{path} is not a checkpoint of pymlp")
        metadata = json.loads(texts["pymlp"])
        if metadata["format"] != _FORMAT:
            raise ValueError(
                f"{path} has format {metadata['format']}, this pymlp reads format {_FORMAT}: "
                "use the version that wrote it"
            )
        return metadata, tensors


def check_vacant(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Check that a run can be made in ``path``.

    Raises:
        FileExistsError: ``path`` holds a run and ``overwrite`` is False, or holds something else.
    """
    path = Path(path)
    if _holds_run(path):
        if not overwrite:
            raise FileExistsError(
                f"{path} already holds a run: resume it, overwrite it, or choose another directory"
            )
    elif path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(
            f"{path} exists and is not a run directory: choose another directory for the run"
        )


def _holds_run(path: Path) -> bool:
    return (path / _CONFIG).is_file() and (path / _STATE).is_file()


def _read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file, from one opening of it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None


def _read_start(path: Path, size: int) -> bytes:
    """The first ``size`` bytes of a file that others may be appending to."""
    with open(path, "rb") as file:
        content = file.read(size)
    if len(content) < size:
        raise ValueError(
            f"{path} is damaged: the checkpoint needs {size} bytes of it, it has {len(content)}"
        )
    return content


def _sync(path: Path) -> int:
    """Make sure that what was appended to ``path`` is on disk; its length in bytes."""
    with open(path, "ab") as file:
        os.fsync(file.fileno())
        return file.tell()


def _savable(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()
