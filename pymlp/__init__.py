"""pymlp: the multi-layer perceptron language model of Bengio et al. (2003), fast, in PyTorch."""

from typing import Any

# The native libraries first: where they are missing, this import says what to do.
from pymlp import _library as _library
from pymlp import data, debug, functional, isa, reference
from pymlp.config import TrainConfig
from pymlp.embeddings import nearest
from pymlp.evaluate import evaluate
from pymlp.functional import (
    cross_entropy,
    embed_linear_tanh,
    linear_cross_entropy,
    mlp_cross_entropy,
)
from pymlp.many import train_many
from pymlp.model import MLP, MLPConfig, lecture_init, scaled_init
from pymlp.presets import PRESETS
from pymlp.progress import ProgressBar
from pymlp.run_config import RunConfig
from pymlp.sampling import sample
from pymlp.scoring import Scorer, log_z, score
from pymlp.trained import load
from pymlp.trainer import Trainer

isa.use_environment()
debug.use_environment()

__all__ = [
    "MLP",
    "PRESETS",
    "MLPConfig",
    "ProgressBar",
    "RunConfig",
    "Scorer",
    "TrainConfig",
    "Trainer",
    "cross_entropy",
    "data",
    "debug",
    "embed_linear_tanh",
    "evaluate",
    "functional",
    "isa",
    "lecture_init",
    "linear_cross_entropy",
    "load",
    "log_z",
    "mlp_cross_entropy",
    "nearest",
    "reference",
    "sample",
    "scaled_init",
    "score",
    "train_many",
]

__version__: str


def __getattr__(name: str) -> Any:
    """The version, which is looked up when it is asked for."""
    if name != "__version__":
        raise AttributeError(f"module 'pymlp' has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version("pymlp")
    except metadata.PackageNotFoundError:
        return "0+unknown"  # run from its sources, without having been installed


def __dir__() -> list[str]:
    return [*__all__, "__version__", *(name for name in globals() if name.startswith("__"))]
