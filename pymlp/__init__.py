"""pymlp: the multi-layer perceptron language model of Bengio et al. (2003), fast, in PyTorch."""

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
from pymlp.run_config import RunConfig
from pymlp.sampling import sample
from pymlp.scoring import Scorer, log_z, score
from pymlp.trainer import Trainer

isa.use_environment()
debug.use_environment()

__all__ = [
    "MLP",
    "PRESETS",
    "MLPConfig",
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
    "log_z",
    "mlp_cross_entropy",
    "nearest",
    "reference",
    "sample",
    "scaled_init",
    "score",
    "train_many",
]
