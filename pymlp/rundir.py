"""The run directory: everything a training run leaves behind.

    config.toml         the configuration of model and trainer, and which data
    vocab.json          the vocabulary
    state.safetensors   the checkpoint: parameters, average, best ones, optimizer, batches, step
    metrics.jsonl       one JSON object a line: {step, lr, loss} or {step, train_loss, dev_loss}
    losses.f64          the loss of every step, little-endian float64
    model.safetensors   the parameters of the checkpoint; their average, if the run keeps one
    best.safetensors    the parameters with the lowest dev loss so far
    .lock               held by the process that trains here, see `pymlp.run_lock`

A checkpoint comes into being at one moment: when ``state.safetensors`` is replaced. What was
appended to other files before counts only up to the lengths that the state implies, and what is
derived from the state is written after it. So a process killed at any moment leaves the old
checkpoint or the new one whole, and `RunDirectory.rewind` brings the other files in step with it.
What is appended is written from memory, so that `RunDirectory.commit` repairs what a full disk
or an interruption left half done.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pymlp.checkpoint import Checkpoint, check_checkpoint, check_parameters
from pymlp.config import TrainConfig
from pymlp.data import Vocabulary
from pymlp.files import (
    GrowingFile,
    leftovers,
    naming,
    put_in_place,
    remove_directory,
    stage_directory,
    temporaries,
    write_atomically,
)
from pymlp.history import evaluations, parse_records
from pymlp.model import MLP, MLPConfig
from pymlp.run_lock import LOCK, RunLock, holder, is_free

_FORMAT = 1
_CONFIG, _VOCABULARY, _STATE = "config.toml", "vocab.json", "state.safetensors"
_METRICS, _LOSSES = "metrics.jsonl", "losses.f64"
_MODEL, _BEST = "model.safetensors", "best.safetensors"
# Written before the state, without which there is no run.
_BEFORE_STATE = (_CONFIG, _VOCABULARY, _METRICS, _LOSSES)
_REPLACED = (_CONFIG, _VOCABULARY, _STATE, _MODEL, _BEST)

# Settings that the first runs of this format do not have.
_ADDED = {
    *("direct", "lr_decay", "decay_biases", "label_smoothing", "z_loss", "dropout"),
    *("eval_train", "sparse_embedding", "sampled_softmax"),
}

Record = Mapping[str, Any]
T = TypeVar("T", MLPConfig, TrainConfig)


class RunDirectory:
    """Reads and writes one run directory; made by `create` or `open`.

    Writing needs the directory's lock, and be it that of another object of this process, until
    `claim` says which object it is that writes.
    """

    def __init__(self, path: Path, lock: RunLock | None = None) -> None:
        self.path = path
        self._lock = lock
        self._metrics, self._losses = GrowingFile(), GrowingFile()

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
            path: the directory; its parents are made. An empty one is filled.
            config: tables of ``config.toml``; values that are None are left out.
            vocabulary: of the model.
            checkpoint: the first one.
            metrics: the records so far.
            overwrite: replace the run that is in ``path``.

        Raises:
            FileExistsError, RunInUseError: see `check_vacant`.
        """
        path = Path(path)
        check_vacant(path, overwrite=overwrite)
        place = Path(os.path.realpath(path))
        content = (config, vocabulary, checkpoint, metrics)
        if place.is_dir() and not _holds_run(place) and _must_stay(place):
            run = cls(place, RunLock.acquire(place))
            run.claim(alone=True)
            check_vacant(path)  # another process may have been here first
            run._fill(*content)
        else:
            old = RunLock.acquire(place) if overwrite and _holds_run(place) else None
            with naming(path, place):
                staged, lock = _stage(place)
            try:
                run = cls(staged, lock)
                run.claim()
                with naming(path, staged):
                    run._fill(*content)
                    put_in_place(staged, place, replace=old is not None)
            except OSError as error:
                if old is None and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    remove_directory(staged)
                    return cls.create(path, *content, overwrite=overwrite)  # it was made meanwhile
                raise
            finally:
                remove_directory(staged)
            if old is not None:
                old.give(None)
        run.path = path
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, to_train: bool = False) -> RunDirectory:
        """The run in ``path``.

        Args:
            path: the directory.
            to_train: take its lock, to write.

        Raises:
            FileNotFoundError: there is none.
            RunInUseError: another process trains there, with ``to_train``.
        """
        path = Path(path)
        _put_back(path)
        if not _holds_run(path):
            raise FileNotFoundError(
                f"no run in {os.fspath(path)}: expected a directory with {_CONFIG} and {_STATE}, "
                "as training writes it"
            )
        return cls(path, RunLock.acquire(path) if to_train else None)

    # --- writing ----------------------------------------------------------------------------------

    def claim(self, *, alone: bool = False) -> None:
        """Be the one that writes; other objects of this process are refused from now on.

        Raises:
            RunInUseError: with ``alone``, another object of this process writes.
        """
        assert self._lock is not None
        self._lock.give(self, to_others=not alone)

    def write_config(self, config: Record) -> None:
        """Replace ``config.toml``."""
        import tomli_w

        self._check_lock()
        tables = {
            name: {key: value for key, value in table.items() if value is not None}
            for name, table in config.items()
        }
        write_atomically(self.path / _CONFIG, tomli_w.dumps(tables).encode())

    def write_metrics(self, records: Sequence[Record]) -> None:
        """Make ``metrics.jsonl`` hold these records: those so far and what came to them.

        They are lost if no `commit` follows. A call that failed is made up for by the next one.

        Raises:
            OSError: the file cannot be written; the error names it.
            RunInUseError: another object of this process writes, or the directory was replaced.
        """
        self._check_lock()
        self._metrics.write(self.path / _METRICS, records, _lines)

    def commit(self, checkpoint: Checkpoint) -> None:
        """Make ``checkpoint`` with the records written so far the one that `rewind` returns to.

        Raises:
            OSError: a file cannot be written; the error names it, and the last checkpoint stays.
            RunInUseError: as `write_metrics`.
        """
        from safetensors.torch import save

        self._check_lock()
        self._losses.write(self.path / _LOSSES, checkpoint.losses, _float64_bytes)
        self._losses.sync(self.path / _LOSSES)
        tensors = {name: _savable(tensor) for name, tensor in checkpoint.tensors.items()}
        metrics_bytes = self._metrics.sync(self.path / _METRICS)
        metrics = _read_start(self.path / _METRICS, metrics_bytes)
        metadata = {
            "format": _FORMAT,
            "steps": len(checkpoint.losses),
            "metrics_bytes": metrics_bytes,
            "info": checkpoint.info,
            "sha256": _digest(tensors, _float64_bytes(checkpoint.losses), metrics),
        }
        # One metadata key: safetensors writes several in no fixed order.
        state = save(tensors, metadata={"pymlp": json.dumps(metadata)})
        write_atomically(self.path / _STATE, state)
        self._write_derived(checkpoint)
        self._remove_temporaries()  # of writes that were interrupted

    def rewind(self) -> Checkpoint:
        """Drop everything written after the last `commit` and return that checkpoint."""
        metadata, checkpoint, records = self._read()
        assert self._lock is not None
        self._remove_temporaries()
        os.truncate(self.path / _METRICS, metadata["metrics_bytes"])
        os.truncate(self.path / _LOSSES, checkpoint.losses.nbytes)
        self._metrics = GrowingFile(len(records), metadata["metrics_bytes"])
        self._losses = GrowingFile(len(checkpoint.losses), checkpoint.losses.nbytes)
        self._write_derived(checkpoint)
        return checkpoint

    def _fill(
        self,
        config: Record,
        vocabulary: Vocabulary,
        checkpoint: Checkpoint,
        records: Sequence[Record],
    ) -> None:
        """Write the first checkpoint into a directory without a run."""
        self._remove_temporaries()
        try:
            self.write_config(config)
            write_atomically(self.path / _VOCABULARY, vocabulary.to_json().encode())
            self.write_metrics(records)
            self.commit(checkpoint)
        except BaseException:
            if not _holds_run(self.path):
                for name in (*_BEFORE_STATE, LOCK):
                    (self.path / name).unlink(missing_ok=True)
            raise

    def _remove_temporaries(self) -> None:
        for file in _temporaries(self.path):
            file.unlink(missing_ok=True)

    def _check_lock(self) -> None:
        assert self._lock is not None
        self._lock.check(self, self.path)

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
        except (ValueError, RecursionError) as error:
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
        path, expected = self.path / _VOCABULARY, self.model_config().vocab_size
        try:
            vocabulary = Vocabulary.from_json(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}: {error}") from None
        if len(vocabulary) != expected:
            raise ValueError(
                f"{path} has {len(vocabulary)} tokens, the model of {_CONFIG} has {expected}"
            )
        return vocabulary

    def checkpoint(self) -> Checkpoint:
        """The last checkpoint; may be read while training goes on.

        Raises:
            ValueError: the files are damaged, or another version's.
        """
        return self._read()[1]

    def metrics(self) -> list[dict[str, Any]]:
        """The records of ``metrics.jsonl`` up to the last checkpoint.

        Raises:
            ValueError: they are not there.
        """
        return self._records(self._state()[0])

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
            check_parameters(tensors, model.config)
        except ValueError as error:
            raise ValueError(f"{self.path}: not the model of {_CONFIG}: {error}") from None
        model.load_state_dict(tensors, assign=True)
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
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"{path}: {error}") from None

    def _read(self) -> tuple[dict[str, Any], Checkpoint, list[dict[str, Any]]]:
        """Metadata, checkpoint and records that fit each other and ``config.toml``."""
        metadata, tensors = self._state()
        content = _read_start(self.path / _LOSSES, 8 * metadata["steps"])
        losses = np.frombuffer(content, dtype="<f8").astype(np.float64)
        checkpoint = Checkpoint(torch.from_numpy(losses), tensors, metadata["info"])
        records = self._records(metadata)
        sizes, config = self.model_config(), self.train_config()
        try:
            check_checkpoint(checkpoint, sizes, config, evaluations(records))
        except ValueError as error:
            raise ValueError(
                f"{self.path / _STATE} does not fit {_CONFIG} or is damaged: {error}"
            ) from None
        metrics = _read_start(self.path / _METRICS, metadata["metrics_bytes"])
        # Runs of earlier versions have none.
        if metadata.get("sha256", digest := _digest(tensors, content, metrics)) != digest:
            raise ValueError(
                f"{self.path / _STATE}, {_LOSSES} or {_METRICS} is damaged: their digest is not "
                "the one that was written with them"
            )
        return metadata, checkpoint, records

    def _records(self, metadata: Record) -> list[dict[str, Any]]:
        path = self.path / _METRICS
        lines = _read_start(path, metadata["metrics_bytes"]).splitlines()
        try:
            return parse_records(lines, metadata["steps"])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Metadata and tensors of the state file, of one and the same checkpoint."""
        path = self.path / _STATE
        texts, tensors = _read_tensors(path)
        if "pymlp" not in texts:
            raise ValueError(f"{path} is not a checkpoint of pymlp")
        try:
            metadata = json.loads(texts["pymlp"])
            version = metadata["format"]
            counts = metadata["steps"], metadata["metrics_bytes"]
            are_counts = all(type(count) is int and count >= 0 for count in counts)
            if not (are_counts and isinstance(metadata["info"], dict)):
                raise ValueError(f"steps and metrics_bytes must be counts, got {counts}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: its metadata: {error!r}") from None
        if version != _FORMAT:
            raise ValueError(
                f"{path} has format {version}, this pymlp reads format {_FORMAT}: "
                "use the version that wrote it"
            )
        return metadata, tensors


def check_vacant(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Check that a run can be made in ``path``.

    A run that was being replaced by a process that was killed meanwhile is put back first.

    Raises:
        FileExistsError: ``path`` holds a run and ``overwrite`` is False, or holds something else,
            or cannot be replaced.
        RunInUseError: with ``overwrite``, another process trains there.
    """
    path = Path(path)
    _recover(path)
    if not _holds_run(path):
        if path.exists() and not _is_vacant(path):
            raise FileExistsError(
                f"{path} exists and is not a run directory: choose another directory for the run"
            )
        return
    if overwrite:
        if path.is_mount() or path.samefile(os.curdir):
            raise FileExistsError(
                f"{path} is a mount point or the working directory and cannot be replaced: choose "
                "another directory"
            )
        RunLock.acquire(Path(os.path.realpath(path)))
        return
    who = holder(path)
    if who:
        raise FileExistsError(f"{path} already holds a run, {who}: choose another directory")
    raise FileExistsError(
        f"{path} already holds a run: resume it, overwrite it, or choose another directory"
    )


def _holds_run(path: Path) -> bool:
    return (path / _CONFIG).is_file() and (path / _STATE).is_file()


def _is_vacant(path: Path) -> bool:
    """Whether a directory is empty, or a process was killed before it had made a run there."""
    if not path.is_dir():
        return False
    names = set(os.listdir(path)) - {file.name for file in _temporaries(path)}
    return not names or (LOCK in names and names <= {LOCK, *_BEFORE_STATE})


def _temporaries(path: Path) -> list[Path]:
    """Temporary files in a run directory, as processes that were killed leave them behind."""
    return [file for name in _REPLACED for file in temporaries(path / name)]


def _stage(path: Path) -> tuple[Path, RunLock]:
    """A new directory beside ``path``, locked."""
    while True:
        staged = stage_directory(path)
        with suppress(FileNotFoundError):  # `_recover` of another process took it for forgotten
            return staged, RunLock.acquire(staged)


def _must_stay(place: Path) -> bool:
    """Whether a directory without a run is filled where it is, not replaced by a filled one."""
    return place.is_mount() or place.samefile(os.curdir) or any(place.iterdir())


def _put_back(path: Path) -> None:
    """Put back the run in ``path`` that a process was about to replace when it was killed."""
    path = Path(os.path.realpath(path))
    for left in leftovers(path):
        if left.suffix == ".old" and not path.exists() and holder(left) is None:
            with suppress(OSError):  # another process may put it back, too
                if _holds_run(left):
                    os.rename(left, path)


def _recover(path: Path) -> None:
    """Put back a run, and remove the leftovers of processes that were killed."""
    _put_back(path)
    for left in leftovers(Path(os.path.realpath(path))):
        with suppress(OSError):  # another process may see to it, too
            if not os.listdir(left):
                left.rmdir()
            elif is_free(left):
                remove_directory(left)


def _read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file, which may be overwritten afterwards."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = path.read_bytes()
    try:
        tensors = load(content)
    except (SafetensorError, KeyError, RuntimeError, AssertionError) as error:
        raise ValueError(f"{path} is not a safetensors file that PyTorch reads: {error}") from None
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    return json.loads(header).get("__metadata__") or {}, tensors


def _read_start(path: Path, size: int) -> bytes:
    """The first ``size`` bytes of a file that others may be appending to."""
    with open(path, "rb") as file:
        there = os.fstat(file.fileno()).st_size
        if there >= size:
            return file.read(size)
    raise ValueError(f"{path} is damaged: the checkpoint needs {size} bytes of it, it has {there}")


def _lines(records: Sequence[Record]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def _float64_bytes(losses: Tensor) -> bytes:
    return losses.numpy().astype("<f8").tobytes()


def _digest(tensors: Mapping[str, Tensor], *contents: bytes) -> str:
    """SHA-256 of the tensors, by name, and of the contents of other files."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(name.encode())
        hasher.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    for content in contents:
        hasher.update(content)
    return hasher.hexdigest()


def _savable(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()
