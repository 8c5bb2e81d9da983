"""A trained model out of its run directory: `load`."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from pymlp.checks import checked_device
from pymlp.config import TrainConfig
from pymlp.data import Vocabulary
from pymlp.model import MLP
from pymlp.rundir import RunDirectory


class Run(NamedTuple):
    """A trained model and what belongs to it.

    Attributes:
        model: with its sizes in ``model.config``.
        vocabulary: of the model's tokens.
        config: how the model was, or is being, trained.
    """

    model: MLP
    vocabulary: Vocabulary
    config: TrainConfig


def load(
    directory: str | os.PathLike[str],
    *,
    best: bool = False,
    device: str | torch.device = "cpu",
) -> Run:
    """The model of a run directory, with its vocabulary and configuration.

    The run may still be training: the model then has the parameters of the last checkpoint.
    `Trainer.resume` goes on with the run itself. A new training that begins with the model's
    parameters is a `Trainer` with another configuration:

        >>> model, vocabulary, config = pymlp.load("runs/lecture")
        >>> print(pymlp.sample(model, vocabulary, 5))
        >>> pymlp.Trainer(model, data, replace(config, lr=0.01)).fit()

    Args:
        directory: what ``pymlp train --out`` or `Trainer.save` wrote.
        best: take the parameters with the lowest dev loss instead of the last ones.
        device: of the model.

    Raises:
        FileNotFoundError: there is no run, or ``best`` and nothing has been evaluated yet.
        TypeError: ``directory`` is no path.
        ValueError: there is no such device; the files are damaged, or another version's.
    """
    if not isinstance(directory, (str, os.PathLike)):
        raise TypeError(f"load: directory must be a path, got {directory!r:.40}")
    place = checked_device("load", device)
    run = RunDirectory.open(directory)
    return Run(run.model(best=best).to(place), run.vocabulary(), run.train_config())
