"""A moment of a training run, and the check that what was read from a file is one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pymlp.batches import check_state
from pymlp.config import TrainConfig
from pymlp.history import Evaluation
from pymlp.model import MLP, MLPConfig
from pymlp.optimizer_state import check_values, state_kinds

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Kind(NamedTuple):
    """The shape of a tensor, and the dtypes that it may have."""

    shape: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Kind:
        """That of a tensor."""
        return cls(tuple(tensor.shape), (tensor.dtype,))

    def __str__(self) -> str:
        """As messages have it."""
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes)
        return f"{names} of shape {self.shape}"


@dataclass(frozen=True)
class Checkpoint:
    """One moment of a training run.

    Attributes:
        losses: (S,) float64, the loss of each of the S steps done.
        tensors: by name; what stands before the first dot is ``model``, ``average``, ``best``,
            ``optimizer`` or ``batches``.
        info: ``best``, an `Evaluation` or None, and ``frozen``, names of parameters; as JSON.
    """

    losses: Tensor
    tensors: Mapping[str, Tensor]
    info: Mapping[str, Any]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix``, named without it."""
        start = len(prefix) + 1
        return {
            name[start:]: tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }


def check_checkpoint(
    checkpoint: Checkpoint, sizes: MLPConfig, config: TrainConfig, evals: Sequence[Evaluation]
) -> None:
    """Check that a run of this model, trained like this, with these evaluations, can have it.

    Raises:
        ValueError: it cannot; the message says which tensor or entry is wrong.
    """
    steps = len(checkpoint.losses)
    shapes = _shapes(sizes)
    _check_info(checkpoint.info, shapes, evals)
    dtype = _dtype(checkpoint.group("model"), "model.")
    # An average is in float32 at least.
    averaged = torch.promote_types(dtype, torch.float32) if config.average else dtype
    groups: dict[str, Mapping[str, Kind]] = {
        "model": {name: Kind(shape, (dtype,)) for name, shape in shapes.items()},
        "batches": _batches_kinds(),
    }
    if config.average:
        groups["average"] = {name: Kind(shape, (averaged,)) for name, shape in shapes.items()}
    if checkpoint.info["best"] is not None:
        groups["best"] = {name: Kind(shape, (averaged,)) for name, shape in shapes.items()}
    if steps:
        groups["optimizer"] = {
            f"{name}.{key}": Kind(shape, dtypes)
            for name in shapes
            if name not in checkpoint.info["frozen"]
            for key, shape, dtypes in state_kinds(config, shapes[name], dtype)
        }
    _check_kinds(
        checkpoint.tensors,
        {f"{group}.{name}": kind for group, part in groups.items() for name, kind in part.items()},
    )
    for group in ("model", "average", "best"):
        _check_finite(checkpoint.group(group), f"{group}.")
    check_values(checkpoint.group("optimizer"), steps)
    check_state(checkpoint.group("batches"), steps)


def check_parameters(tensors: Mapping[str, Tensor], sizes: MLPConfig) -> None:
    """Check that a model of these sizes can have these parameters.

    Raises:
        ValueError: it cannot; the message says which one is wrong.
    """
    dtype = _dtype(tensors)
    kinds = {name: Kind(shape, (dtype,)) for name, shape in _shapes(sizes).items()}
    _check_kinds(tensors, kinds)
    _check_finite(tensors)


def _shapes(sizes: MLPConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(p.shape) for name, p in MLP(sizes).state_dict().items()}


def _dtype(tensors: Mapping[str, Tensor], prefix: str = "") -> torch.dtype:
    """The dtype of a model, all parameters of which have the same one."""
    name, first = next(iter(sorted(tensors.items())), (None, None))
    if first is None:
        raise ValueError("there are no parameters in it")
    if first.dtype not in _DTYPES:
        wanted = Kind(tuple(first.shape), _DTYPES)
        raise ValueError(f"{prefix}{name} must be {wanted}, got {Kind.of(first)}")
    return first.dtype


def _check_kinds(found: Mapping[str, Tensor], expected: Mapping[str, Kind]) -> None:
    missing = sorted(expected.keys() - found.keys())
    if missing:
        raise ValueError(f"{missing[0]} is missing, {expected[missing[0]]}")
    surplus = sorted(found.keys() - expected.keys())
    if surplus:
        raise ValueError(f"{surplus[0]}, {Kind.of(found[surplus[0]])}, does not belong there")
    for name, wanted in expected.items():
        got = Kind.of(found[name])
        if got.shape != wanted.shape or found[name].dtype not in wanted.dtypes:
            raise ValueError(f"{name} must be {wanted}, got {got}")


def _check_finite(tensors: Mapping[str, Tensor], prefix: str = "") -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{prefix}{name} must be finite, it holds inf or nan")


def _check_info(info: Mapping[str, Any], names: Iterable[str], evals: Sequence[Evaluation]) -> None:
    frozen = info.get("frozen")
    if not isinstance(frozen, list) or not set(map(str, frozen)) <= set(names):
        raise ValueError(f"frozen must be a list of parameters' names, got {frozen!r}")
    # As JSON, nan is like nan.
    known = ["null", *map(json.dumps, evals)]
    if "best" not in info or json.dumps(info["best"]) not in known:
        raise ValueError(f"best must be an evaluation of metrics.jsonl, got {info.get('best')!r}")


def _batches_kinds() -> dict[str, Kind]:
    return {
        "generator": Kind.of(torch.Generator("cpu").get_state()),
        "position": Kind((), (torch.int64,)),
    }
