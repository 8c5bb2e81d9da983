"""The model: sizes (`MLPConfig`), the fused network (`MLP`) and the lecture's initialisation."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pymlp import functional, reference

LECTURE_SEED = 2147483647
INITS = ("torch", "lecture")

# A petabyte of them; torch's own sizes end at 2**63.
_MAX_PARAMS = 2**48


@dataclass(frozen=True)
class MLPConfig:
    """Sizes of the model, in tokens and units.

    Args:
        vocab_size: number V of tokens.
        block_size: length T of the context.
        n_embd: width E of an embedding row.
        n_hidden: number H of hidden units.

    Raises:
        TypeError: a size is not an int.
        ValueError: a size is below 1, or there are more parameters than any memory holds.
    """

    vocab_size: int
    block_size: int = 3
    n_embd: int = 10
    n_hidden: int = 200

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(
                    f"MLPConfig: {field.name} must be an int, got {type(value).__name__} {value!r}"
                )
            if value < 1:
                raise ValueError(f"MLPConfig: {field.name} must be at least 1, got {value}")
        if self.n_params > _MAX_PARAMS:
            raise ValueError(f"MLPConfig: {self.n_params:,} parameters are too many: {self}")

    @property
    def n_params(self) -> int:
        """Number of trainable parameters."""
        embedding = self.vocab_size * self.n_embd
        hidden = (self.block_size * self.n_embd + 1) * self.n_hidden
        output = (self.n_hidden + 1) * self.vocab_size
        return embedding + hidden + output


class MLP(nn.Module):
    """The language model of Bengio et al. (2003) on fused operators.

    The embeddings of T tokens, laid side by side, go through one tanh layer; a linear layer gives
    the logits of the next token. Parameters have the names, shapes and first values of torch.nn's
    modules: `embedding.weight` (V, E), `hidden.weight` (H, T*E), `hidden.bias` (H,),
    `output.weight` (V, H), `output.bias` (V,). `pymlp.reference.MLP` has the same state_dict.
    Equivalent to: `reference.MLP(config)`.

    Args:
        config: sizes of the model.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.hidden = nn.Linear(config.block_size * config.n_embd, config.n_hidden)
        self.output = nn.Linear(config.n_hidden, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (..., V) of the token that follows each context in `tokens` (..., T)."""
        hidden = functional.embed_linear_tanh(
            tokens, self.embedding.weight, self.hidden.weight, self.hidden.bias
        )
        return F.linear(hidden, self.output.weight, self.output.bias)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats (a scalar) of `targets` (B,) after `tokens` (B, T)."""
        return functional.mlp_cross_entropy(
            tokens,
            targets,
            self.embedding.weight,
            self.hidden.weight,
            self.hidden.bias,
            self.output.weight,
            self.output.bias,
        )


@torch.no_grad()
def lecture_init(model: MLP | reference.MLP, seed: int = LECTURE_SEED) -> None:
    """Overwrite all parameters, in place, with the lecture's own starting point.

    Draws C (V, E), W1 (T*E, H), b1 (H,), W2 (H, V), b2 (V,) from the standard normal distribution,
    in this order and layout, from a generator of its own on the CPU, and transposes W1 and W2 into
    torch.nn's layout. The global generator is not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = (
        model.embedding.weight,
        model.hidden.weight.T,
        model.hidden.bias,
        model.output.weight.T,
        model.output.bias,
    )
    for parameter in parameters:
        parameter.copy_(torch.randn(parameter.shape, generator=generator))


def seeded_model(config: MLPConfig, seed: int, init: str = "torch") -> MLP:
    """A model whose first parameters depend on `seed` alone; the global generator stays as it is.

    Args:
        config: sizes of the model.
        seed: with "torch", the parameters are those of `MLP(config)` after `torch.manual_seed`.
        init: "torch" leaves them so, "lecture" calls `lecture_init` with the same seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = MLP(config)
    if init == "lecture":
        lecture_init(model, seed)
    return model
