"""pymlp: the multi-layer perceptron language model of Bengio et al. (2003), fast, in PyTorch."""

from pymlp import functional, isa, reference
from pymlp.functional import (
    cross_entropy,
    embed_linear_tanh,
    linear_cross_entropy,
    mlp_cross_entropy,
)
from pymlp.model import MLP, MLPConfig

isa.use_environment()

__all__ = [
    "MLP",
    "MLPConfig",
    "cross_entropy",
    "embed_linear_tanh",
    "functional",
    "isa",
    "linear_cross_entropy",
    "mlp_cross_entropy",
    "reference",
]
