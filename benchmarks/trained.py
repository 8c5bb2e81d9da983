"""The model that the suites `eval`, `sample` and `score` use: the lecture's, briefly trained."""

import functools

import torch

from pymlp.config import TrainConfig
from pymlp.data import Dataset, names
from pymlp.model import MLP, MLPConfig
from pymlp.trainer import Trainer

T, E, H = 3, 10, 200
STEPS = 10_000


@functools.cache
def trained() -> tuple[MLP, Dataset]:
    """The model and the bundled names, the same at every call."""
    data = Dataset.from_lines(names(), block_size=T)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MLP(MLPConfig(len(data.vocabulary), T, E, H))
    Trainer(model, data, TrainConfig(steps=STEPS, eval_every=0)).fit()
    return model, data


def shape() -> str:
    """The sizes of it, as text."""
    return f"T={T} E={E} H={H} V={len(trained()[1].vocabulary)}"
