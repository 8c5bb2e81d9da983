"""Checks of a `Trainer`'s model and data, and of all that a run directory is to hold."""

from __future__ import annotations

import os
from dataclasses import fields
from functools import cached_property

import torch
from torch import distributed

from pymlp.config import TrainConfig
from pymlp.data import Dataset, Examples, Vocabulary
from pymlp.model import MLP, MLPConfig
from pymlp.plain import check_model, gradient_hooks_reason, unsupported_reason


def check_plain(model: MLP) -> None:
    """A run directory describes a model by its sizes, and no two tensors of it share memory."""
    tensors = model.state_dict()
    with torch.device("meta"):
        expected = MLP(model.config).state_dict()
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if type(model) is not MLP or shapes != {name: t.shape for name, t in expected.items()}:
        raise ValueError(
            f"Trainer: a run directory holds an MLP with {', '.join(expected)}, "
            f"got {type(model).__name__} with {', '.join(tensors)}: save its state_dict instead"
        )
    places = [tensor.data_ptr() for tensor in tensors.values() if tensor.numel()]
    if len(set(places)) < len(places):
        raise ValueError(
            "Trainer: a run directory holds each parameter by itself, two of this model share "
            "memory: save its state_dict instead"
        )
    reason = unsupported_reason(model) or gradient_hooks_reason(model)
    if reason is not None:
        raise ValueError(
            f"Trainer: a run directory cannot hold what is attached to the model: {reason}: "
            "remove it, or save the model's state_dict instead"
        )


def check_described(config: TrainConfig, data: Dataset) -> None:
    """A run directory describes a config by its fields, and data by their text and how to read it.

    Raises:
        ValueError: the config, the data set or its vocabulary can do other things than that.
    """
    for thing, kind in ((config, TrainConfig), (data, Dataset), (data.vocabulary, Vocabulary)):
        known = {field.name for field in fields(kind)}
        known |= {name for name, value in vars(kind).items() if isinstance(value, cached_property)}
        added = sorted(vars(thing).keys() - known)
        if type(thing) is not kind or added:
            what = " with its own ".join([type(thing).__name__, *added[:1]])
            raise ValueError(
                f"Trainer: a run directory holds the fields of a {kind.__name__}, got {what}: "
                f"resume would not know what else it does; pass a plain {kind.__name__}"
            )


def check_dataset(caller: str, data: object) -> None:
    """Raise TypeError unless ``data`` is a `pymlp.data.Dataset`; ``caller`` begins the message."""
    if not isinstance(data, Dataset):
        raise TypeError(
            f"{caller}: the data must be a pymlp.data.Dataset, got {type(data).__name__}: make one "
            "with Dataset.from_lines(lines) or pymlp.data.load(path)"
        )


def checked_config(config: TrainConfig | None) -> TrainConfig:
    """The config of a `Trainer`, ``TrainConfig()`` for None; TypeError for what is none."""
    if config is None:
        return TrainConfig()
    if not isinstance(config, TrainConfig):
        raise TypeError(
            f"Trainer: config must be a pymlp.TrainConfig or None, got {type(config).__name__}: "
            "make one, such as TrainConfig(steps=1000)"
        )
    return config


def checked_device(caller: str, device: str | torch.device) -> torch.device:
    """The device, which is there.

    Raises:
        TypeError: it is neither a str nor a `torch.device`.
        ValueError: PyTorch knows no such device, or this machine has none.
    """
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"{caller}: device must be a str or a torch.device, got {device!r:.40}")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"{caller}: device must be one that PyTorch knows, such as 'cpu' or 'cuda', "
            f"got {device!r:.40}"
        ) from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"{caller}: device {str(found)!r} is not there: PyTorch finds "
            f"{torch.cuda.device_count()} CUDA devices: use device='cpu'"
        )
    return found


def check_fit(model: MLP, data: Dataset) -> None:
    """Check that a `Trainer` can train ``model`` on ``data``.

    Raises:
        TypeError: the model is no MLP, or the data are no `Dataset`.
        ValueError: model and data do not fit together, or data hold what they must not.
        RuntimeError: the process is one of several of torch.distributed, or in
            `torch.inference_mode`, or the model was made there.
    """
    check_model("Trainer", model)
    check_dataset("Trainer", data)
    _check_alone()
    if torch.is_inference_mode_enabled() or any(p.is_inference() for p in model.parameters()):
        raise RuntimeError(
            "Trainer: nothing can be trained in torch.inference_mode(), nor a model that was made "
            "there: leave it first, torch.no_grad() does no harm"
        )
    sizes = {"vocab_size": len(data.vocabulary), "block_size": data.block_size}
    for name, size in sizes.items():
        if getattr(model.config, name) != size:
            raise ValueError(
                f"Trainer: {name} of the model is {getattr(model.config, name)}, "
                f"that of the data is {size}: make the model with MLPConfig({name}={size})"
            )
    if not data.sizes["train"] or not data.sizes["dev"]:
        raise ValueError(
            "Trainer: train and dev must not be empty, got "
            f"{', '.join(f'{n:,} of {name}' for name, n in data.sizes.items())} examples: "
            "give more lines, at least 10, or tokens to each of them by a split such as "
            "'800000,200000,rest'"
        )
    for name in ("train", "dev"):
        _check_examples(name, getattr(data, name), model.config)


def _check_alone() -> None:
    """Under torchrun every process would train a whole model of its own, and save it."""
    if distributed.is_available() and distributed.is_initialized():
        count = distributed.get_world_size()
    else:
        given = os.environ.get("WORLD_SIZE", "1")
        count = int(given) if given.isdecimal() else 1
    if count > 1:
        raise RuntimeError(
            f"Trainer: this is one of {count} processes of torch.distributed (WORLD_SIZE), and "
            "each would train alone on all of the data; training one model in several processes "
            "is not supported yet: start one"
        )


def _check_examples(name: str, examples: Examples, sizes: MLPConfig) -> None:
    """They may be made by hand, and ids decide what memory is read."""
    shape = len(examples), examples.block_size
    if shape[0] < 1 or shape[1] != sizes.block_size:
        raise ValueError(
            f"Trainer: the tokens of {name} must have shape (N, {sizes.block_size}) with N of at "
            f"least 1, got {shape}"
        )
    bad = examples.find_outside(sizes.vocab_size)
    if bad is not None:
        raise ValueError(
            f"Trainer: the {bad.what} of {name} must be ids from 0 to {sizes.vocab_size - 1}, "
            f"got {bad.id} at {bad.place}"
        )
