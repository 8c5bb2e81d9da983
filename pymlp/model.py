"""The model: sizes (`MLPConfig`), the fused network (`MLP`) and the lecture's initialisation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pymlp import functional, reference
from pymlp.arguments import to_bool, to_int
from pymlp.layers import call_reason, layers_reason
from pymlp.reference import Candidates, DropoutMasks

LECTURE_SEED = 2147483647
INITS = ("torch", "lecture", "scaled", "unigram")

# Factor between the standard deviation of what a tanh layer is fed and that of what it gives.
_TANH_GAIN = 5 / 3

# A petabyte of them; torch's own sizes end at 2**63.
_MAX_PARAMS = 2**48


@dataclass(frozen=True)
class MLPConfig:
    """Sizes of the model, in tokens and units.

    Args:
        vocab_size: number V of tokens.
        block_size: length T of the context.
        n_embd: width E of an embedding row.
        n_hidden: number H of hidden units; may be 0 with `direct`.
        direct: connections from the embeddings straight to the output, beside the hidden layer
            (Bengio et al., 2003, section 2: the matrix W).

    Raises:
        TypeError: a size is not an int, or `direct` is not a bool.
        ValueError: a size is below 1, or there are more parameters than any memory holds.
    """

    vocab_size: int
    block_size: int = 3
    n_embd: int = 10
    n_hidden: int = 200
    direct: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "direct", to_bool("MLPConfig", "direct", self.direct))
        for name in ("vocab_size", "block_size", "n_embd", "n_hidden"):
            least = 0 if name == "n_hidden" and self.direct else 1
            size = to_int("MLPConfig", name, getattr(self, name), least)
            object.__setattr__(self, name, size)
        if self.n_params > _MAX_PARAMS:
            raise ValueError(f"MLPConfig: {self.n_params:,} parameters are too many: {self}")

    @property
    def n_params(self) -> int:
        """Number of trainable parameters."""
        embedding = self.vocab_size * self.n_embd
        hidden = (self.block_size * self.n_embd + 1) * self.n_hidden
        output = (self.n_hidden + 1) * self.vocab_size
        direct = self.block_size * self.n_embd * self.vocab_size if self.direct else 0
        return embedding + hidden + output + direct


class MLP(reference.MLP):
    """The language model of Bengio et al. (2003) on fused operators.

    The embeddings of T tokens, laid side by side, go through one tanh layer; a linear layer gives
    the logits of the next token. Parameters have the names, shapes and first values of torch.nn's
    modules: `embedding.weight` (V, E), `hidden.weight` (H, T*E), `hidden.bias` (H,),
    `output.weight` (V, H), `output.bias` (V,) and, with direct connections, `direct.weight`
    (V, T*E). `pymlp.reference.MLP` has the same state_dict.
    Equivalent to: `reference.MLP(config)`.

    The layers are called, as in `reference.MLP`, where a call does more than the layer's formula:
    hooks, pruning, parametrizations, adapters and other replacements act as they do in PyTorch.
    `torch.export`, `torch.onnx`, `torch.jit.trace` and `torch.fx` see these calls, too, and so no
    operator of pymlp; `torch.jit.script` needs a `reference.MLP` with the same state_dict.

    Args:
        config: sizes of the model.
    """

    def forward(self, tokens: Tensor, dropout: DropoutMasks | None = None) -> Tensor:
        """Logits (..., V) of the token that follows each context in `tokens` (..., T)."""
        if isinstance(dropout, fx.Proxy):  # torch.fx puts one in place of every argument
            dropout = None
        if _is_exported(tokens) or layers_reason(self) is not None:
            return super().forward(tokens, dropout)
        return F.linear(*self._last_layer(tokens, dropout), self.output.bias)

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        dropout: DropoutMasks | None = None,
        candidates: Candidates | None = None,
    ) -> Tensor:
        """Mean cross-entropy in nats (a scalar) of `targets` (B,) after `tokens` (B, T).

        Never holds the (B, V) logits, unless something acts on a call of the model or its layers:
        hooks, or a subclass's own forward. Equivalent to: `reference.MLP.loss`.

        Args:
            tokens, targets: ids.
            label_smoothing, z_loss: as in `pymlp.linear_cross_entropy`.
            dropout: masks of this batch, or None for all of the network.
            candidates: of this batch, which its softmax is then of; None is exact.

        Raises:
            ValueError: ``label_smoothing`` with ``candidates``.
        """
        if (
            _is_exported(tokens)
            or type(self).forward is not MLP.forward
            or call_reason("the model", self) is not None
            or layers_reason(self) is not None
        ):
            return super().loss(
                tokens,
                targets,
                label_smoothing=label_smoothing,
                z_loss=z_loss,
                dropout=dropout,
                candidates=candidates,
            )
        is_plain = self.direct is None and dropout is None and candidates is None
        if is_plain and z_loss == 0.0:
            return functional.mlp_cross_entropy(
                tokens,
                targets,
                self.embedding.weight,
                self.hidden.weight,
                self.hidden.bias,
                self.output.weight,
                self.output.bias,
                label_smoothing=label_smoothing,
            )
        input, weight = self._last_layer(tokens, dropout)
        bias: Tensor | None = self.output.bias
        if candidates is not None:
            reference.check_smoothing(label_smoothing)
            weight, targets = weight[candidates.words], candidates.places
            bias = candidates.offsets + (0.0 if bias is None else bias[candidates.words])
        loss = functional.linear_cross_entropy(
            input,
            weight,
            targets,
            linear_bias=bias,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
        )
        return loss if candidates is None else loss + candidates.offsets[targets].mean()

    def _last_layer(self, tokens: Tensor, dropout: DropoutMasks | None) -> tuple[Tensor, Tensor]:
        """The input of the last layer, and its weight: (..., K) and (V, K).

        K is H, or H + T*E with direct connections, whose sum is one product of side-by-side
        matrices.
        """
        if self.direct is None and dropout is None:
            return self._hidden(tokens), self.output.weight
        x = F.embedding(tokens, self.embedding.weight).flatten(-2)
        if dropout is None:
            h = self._hidden(tokens)
        else:
            x = x * dropout.input
            h = torch.tanh(F.linear(x, self.hidden.weight, self.hidden.bias)) * dropout.hidden
        if self.direct is None:
            return h, self.output.weight
        weight = torch.cat([self.output.weight, self.direct.weight], dim=1)
        return torch.cat([h, x], dim=-1), weight

    def _hidden(self, tokens: Tensor) -> Tensor:
        return functional.embed_linear_tanh(
            tokens, self.embedding.weight, self.hidden.weight, self.hidden.bias
        )


def _is_exported(tokens: Tensor) -> bool:
    """Whether a graph of the model is made that others are to run."""
    is_traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined]
    return is_traced or torch.compiler.is_exporting() or isinstance(tokens, fx.Proxy)


@torch.no_grad()
def _torch_init(model: reference.MLP, seed: int) -> None:
    """Overwrite all parameters, in place, as `MLP(config)` draws them after `torch.manual_seed`.

    The layers themselves draw from the global generator, which all threads share.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    nn.init.normal_(model.embedding.weight, generator=generator)
    for layer in (model.hidden, model.output, model.direct):
        if layer is None:
            continue
        if not layer.weight.numel():  # an EmptyLinear
            nn.init.zeros_(layer.bias)
            continue
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        if layer.bias is not None:
            bound = 1 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def _checked_seed(owner: str, seed: int) -> int:
    """A seed in the range of `torch.Generator.manual_seed`."""
    return to_int(owner, "seed", seed, -(2**63), most=2**64 - 1)


@torch.no_grad()
def lecture_init(model: MLP | reference.MLP, seed: int = LECTURE_SEED) -> None:
    """Overwrite all parameters, in place, with the lecture's own starting point.

    Draws C (V, E), W1 (T*E, H), b1 (H,), W2 (H, V), b2 (V,) from the standard normal distribution,
    in this order and layout, from a generator of its own on the CPU, and transposes W1 and W2 into
    torch.nn's layout. Direct connections, which the lecture has not, begin at 0. The global
    generator is not touched.
    """
    generator = torch.Generator("cpu").manual_seed(_checked_seed("lecture_init", seed))
    parameters = (
        model.embedding.weight,
        model.hidden.weight.T,
        model.hidden.bias,
        model.output.weight.T,
        model.output.bias,
    )
    for parameter in parameters:
        parameter.copy_(torch.randn(parameter.shape, generator=generator, device="cpu"))
    if model.direct is not None:
        model.direct.weight.zero_()


@torch.no_grad()
def scaled_init(model: MLP | reference.MLP, seed: int, counts: Tensor | None = None) -> None:
    """Overwrite all parameters, in place, so that the model begins by knowing nothing, evenly.

    Embeddings are drawn from the standard normal distribution, the hidden weight from one that
    keeps the signal at its size through tanh (He et al., 2015), the output weight close to 0. The
    output bias alone decides the first predictions: log(1/V) for every token or, with `counts`,
    the logarithm of its frequency, counts being raised by one. With `counts` embeddings begin at a
    twentieth of that size, too: a token that is met a few times keeps most of what it began with,
    which would be noise to all others. Either way the softmax sum of the
    logits begins at about 1, where self-normalised training wants it (Devlin et al., 2014).

    Args:
        model: of any sizes.
        seed: of a generator of its own, on the CPU; the global one is not touched.
        counts: (V,), how often each token occurs; None is never.
    """
    generator = torch.Generator("cpu").manual_seed(_checked_seed("scaled_init", seed))
    sizes = model.config

    def draw(parameter: Tensor, deviation: float) -> None:
        drawn = torch.randn(parameter.shape, generator=generator, device="cpu")
        parameter.copy_(deviation * drawn)

    draw(model.embedding.weight, 1.0 if counts is None else 0.05)
    draw(model.hidden.weight, _TANH_GAIN / (sizes.block_size * sizes.n_embd) ** 0.5)
    draw(model.output.weight, 0.01)
    model.hidden.bias.zero_()
    raised = torch.ones(sizes.vocab_size, dtype=torch.float64, device="cpu")
    if counts is not None:
        raised += counts
    model.output.bias.copy_((raised / raised.sum()).log())
    if model.direct is not None:
        model.direct.weight.zero_()


def seeded_model(
    config: MLPConfig, seed: int, init: str = "torch", counts: Tensor | None = None
) -> MLP:
    """A model on the CPU whose first parameters depend on `seed` alone, in any thread.

    The global generator stays as it is.

    Args:
        config: sizes of the model.
        seed: with "torch", the parameters are those of `MLP(config)` after `torch.manual_seed`.
        init: "torch" leaves them so, "lecture" calls `lecture_init` with the same seed, "scaled"
            `scaled_init`, and "unigram" `scaled_init` with `counts`.
        counts: (V,), how often each token occurs in train, for "unigram".
    """
    with torch.device("meta"):  # draws nothing
        model = MLP(config)
    model.to_empty(device="cpu")
    if init == "torch":
        _torch_init(model, seed)
    elif init == "lecture":
        lecture_init(model, seed)
    elif init == "scaled":
        scaled_init(model, seed)
    elif init == "unigram":
        if counts is None:
            raise ValueError("seeded_model: init='unigram' needs the counts of the tokens")
        scaled_init(model, seed, counts)
    return model
