"""The definition of right: every operator and the model in plain PyTorch, reading like the lecture.

Source: Bengio, Ducharme, Vincent, Jauvin, "A Neural Probabilistic Language Model", JMLR 3 (2003),
as taught in "Building makemore part 2: MLP". The operators have the signatures of
`pymlp.functional`. They are made of differentiable PyTorch functions only, without in-place changes
and without Python control flow on values, so they compose with torch.func transforms and
differentiate any number of times. The end of the file holds the lecture's steps as a person would
check them.

Shapes use B (batch), T (block_size), V (vocab_size), E (n_embd) and H (n_hidden).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from pymlp.model import MLPConfig


# --- the operators --------------------------------------------------------------------------------


def embed_linear_tanh(
    tokens: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """The hidden layer: look up T rows, lay them side by side, apply a linear layer and tanh.

    Args:
        tokens: (..., T) int32 or int64 ids in [0, V).
        embedding: (V, E) floating point.
        weight: (H, T*E), as `torch.nn.Linear` holds it.
        bias: (H,) or None.

    Returns:
        hidden (..., H) in the dtype of `embedding`.
    """
    return torch.tanh(F.linear(F.embedding(tokens, embedding).flatten(-2), weight, bias))


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """`torch.nn.functional.cross_entropy`, which also takes int32 and uint8 targets here.

    Args:
        input: (V,), (N, V) or (N, V, d1, ...) logits.
        target: class ids of shape (), (N,) or (N, d1, ...), or probabilities shaped as `input`.
        weight: (V,) weight of every class, or None for ones.
        ignore_index: the id that counts for nothing.
        reduction: "mean" (over the weights of the targets), "sum" or "none".
        label_smoothing: share in [0, 1] of the target that is spread evenly over the classes.

    Returns:
        The loss in nats: a scalar, or for "none" the shape of the class ids.
    """
    return F.cross_entropy(
        input,
        target.long() if target.dtype in (torch.int32, torch.uint8) else target,
        weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:
    """Cross-entropy of a linear layer: logits = softcap * tanh(linear(input) / softcap).

    To the cross-entropy of the logits is added z_loss * reduce(logsumexp(logits)**2) over the
    tokens that are not ignored; "mean" divides both by the same sum of target weights. Softcap:
    Gemma 2 report (2024); z-loss: de Brébisson and Vincent (2016), PaLM (2022).

    Args:
        input: (..., H), leading dimensions of any number.
        linear_weight: (V, H).
        target: (...) class ids, or (..., V) probabilities.
        linear_bias: (V,) or None.
        weight, ignore_index, reduction, label_smoothing: as in `cross_entropy`.
        z_loss: factor of the squared log-normaliser; 0 leaves the term out.
        softcap: bound of the logits' magnitude, or None for no bound.

    Returns:
        The loss in nats: a scalar, or for "none" the leading shape of `input`.
    """
    logits = F.linear(input, linear_weight, linear_bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    leading = logits.shape[:-1]
    if len(leading) > 1:
        # F.cross_entropy wants the classes in dimension 1.
        logits = logits.flatten(0, -2)
        target = target.flatten(0, -2) if target.is_floating_point() else target.flatten()
    loss = cross_entropy(logits, target, weight, ignore_index, reduction, label_smoothing)
    if z_loss != 0.0:
        loss = loss + z_loss * _squared_log_normaliser(
            logits, target, weight, ignore_index, reduction
        )
    return loss.reshape(leading) if reduction == "none" else loss


def _squared_log_normaliser(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
) -> Tensor:
    """logsumexp(logits)**2 of the tokens that count, reduced as cross-entropy reduces."""
    squares = torch.logsumexp(logits, dim=-1).square()
    if target.is_floating_point():  # probabilities: nothing is ignored, "mean" counts the tokens
        return {"none": squares, "sum": squares.sum(), "mean": squares.mean()}[reduction]
    counts = target != ignore_index
    squares = torch.where(counts, squares, 0.0)
    if reduction == "none":
        return squares
    if reduction == "sum":
        return squares.sum()
    if weight is None:
        return squares.sum() / counts.sum()
    ids = torch.where(counts, target, 0).long().flatten()
    return squares.sum() / torch.where(counts.flatten(), weight.gather(0, ids), 0.0).sum()


def mlp_cross_entropy(
    tokens: Tensor,
    targets: Tensor,
    embedding: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor | None,
    output_weight: Tensor,
    output_bias: Tensor | None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The whole model and its loss: embed_linear_tanh, a linear layer, cross-entropy.

    Args:
        tokens: (..., T) int32 or int64 ids in [0, V).
        targets: (...) int32 or int64 ids in [0, V), or `ignore_index`.
        embedding: (V, E).
        hidden_weight, hidden_bias: (H, T*E) and (H,) or None.
        output_weight, output_bias: (V, H) and (V,) or None.
        ignore_index, reduction, label_smoothing: as in `cross_entropy`.

    Returns:
        The loss in nats per token: a scalar, or for "none" the shape of `targets`.
    """
    return linear_cross_entropy(
        embed_linear_tanh(tokens, embedding, hidden_weight, hidden_bias),
        output_weight,
        targets,
        linear_bias=output_bias,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


# --- the model ------------------------------------------------------------------------------------


class DropoutMasks(NamedTuple):
    """The factors of dropout for a batch: 0, or 1 / (1 - rate), drawn anew for every step.

    Attributes:
        input: (B, T*E), of the concatenated embeddings.
        hidden: (B, H), of the hidden layer after tanh.
    """

    input: Tensor
    hidden: Tensor


class Candidates(NamedTuple):
    """The words that the targets of a step of the sampled softmax are compared with.

    Attributes:
        words: (R,) int64, ascending: the batch's targets and words of noise.
        places: (B,) int64: the targets are ``words[places]``.
        offsets: (R,) what is added to the words' logits: the logarithm of how often each was drawn
            over how often that was expected.
    """

    words: Tensor
    places: Tensor
    offsets: Tensor


def check_smoothing(label_smoothing: float) -> None:
    """Raise ValueError unless a sampled softmax can do it."""
    if label_smoothing > 0:
        raise ValueError(
            "label_smoothing spreads over the whole vocabulary, of which the sampled softmax sees "
            "a part: use one of them alone"
        )


class EmptyLinear(nn.Linear):
    """A linear layer from or to nothing, whose bias begins at 0 as torch.nn's would.

    torch.nn warns that there is nothing to initialise.
    """

    def reset_parameters(self) -> None:
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class MLP(nn.Module):
    """The lecture's network in plain PyTorch; its state_dict is that of `pymlp.MLP`.

    Args:
        config: sizes of the model (`pymlp.MLPConfig`).
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        n_input = config.block_size * config.n_embd
        linear = nn.Linear if config.n_hidden else EmptyLinear
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.hidden = linear(n_input, config.n_hidden)
        self.output = linear(config.n_hidden, config.vocab_size)
        self.direct = nn.Linear(n_input, config.vocab_size, bias=False) if config.direct else None

    def forward(self, tokens: Tensor, dropout: DropoutMasks | None = None) -> Tensor:
        """Logits (..., V) of the token that follows each context in `tokens` (..., T)."""
        x = self.embedding(tokens).flatten(-2)  # (..., T*E)
        if dropout is not None:
            x = x * dropout.input
        h = torch.tanh(self.hidden(x))  # (..., H)
        if dropout is not None:
            h = h * dropout.hidden
        logits: Tensor = self.output(h)  # (..., V)
        if self.direct is not None:
            logits = logits + self.direct(x)
        return logits

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

        Args:
            tokens, targets: ids.
            label_smoothing, z_loss: as in `linear_cross_entropy`.
            dropout: masks of this batch, or None for all of the network.
            candidates: of this batch, which its softmax is then of; None is exact.

        Raises:
            ValueError: ``label_smoothing`` with ``candidates``.
        """
        logits = self(tokens) if dropout is None else self(tokens, dropout=dropout)
        if candidates is not None:
            check_smoothing(label_smoothing)
            logits = logits[:, candidates.words] + candidates.offsets
            targets = candidates.places
        loss = cross_entropy(logits, targets, label_smoothing=label_smoothing)
        if z_loss != 0.0:
            loss = loss + z_loss * logits.logsumexp(-1).square().mean()
        if candidates is not None:
            loss = loss + candidates.offsets[candidates.places].mean()
        return loss


# --- the lecture's steps, to be checked by hand ---------------------------------------------------


def examples(
    lines: Iterable[Sequence[str]], ids: Mapping[str, int], block_size: int
) -> tuple[Tensor, Tensor]:
    """The lecture's `build_dataset`: slide a window of `block_size` ids over every line.

    Args:
        lines: strings, or lists of words.
        ids: the id of every token of the lines; id 0 pads the contexts and ends each line.
        block_size: length T of the contexts.

    Returns:
        tokens (N, T) and targets (N,), int64, where N counts every token and every line end.
    """
    X: list[list[int]] = []
    Y: list[int] = []
    for line in lines:
        context = [0] * block_size
        for ix in [*(ids[token] for token in line), 0]:
            X.append(context)
            Y.append(ix)
            context = [*context[1:], ix]  # crop and append
    tokens = torch.tensor(X, dtype=torch.int64).view(-1, block_size)
    return tokens, torch.tensor(Y, dtype=torch.int64)


def one_hot_lookup(tokens: Tensor, embedding: Tensor) -> Tensor:
    """Rows of `embedding` (V, E) as a matrix product: one-hot rows (..., V) times the table.

    Equals embedding[tokens], (..., E): indexing is a linear layer that skips the products with 0.
    """
    return F.one_hot(tokens.long(), embedding.shape[0]).to(embedding.dtype) @ embedding


def concat_by_cat(emb: Tensor) -> Tensor:
    """(..., T, E) to (..., T*E): name every position and concatenate. Copies."""
    return torch.cat([emb[..., t, :] for t in range(emb.shape[-2])], dim=-1)


def concat_by_unbind(emb: Tensor) -> Tensor:
    """(..., T, E) to (..., T*E) for any T: `unbind` lists the positions. Copies."""
    return torch.cat(torch.unbind(emb, dim=-2), dim=-1)


def concat_by_view(emb: Tensor) -> Tensor:
    """(..., T, E) to (..., T*E) without a copy: the numbers already lie in that order in memory."""
    return emb.view(*emb.shape[:-2], emb.shape[-2] * emb.shape[-1])


def softmax_loss_by_hand(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of `targets` (N,) under softmax of `logits` (N, V).

    Equals F.cross_entropy while exp stays in range. In float32 exp overflows above 88.7: the
    probability becomes inf/inf = nan, where F.cross_entropy is right (see `softmax_loss_shifted`).
    """
    counts = logits.exp()
    prob = counts / counts.sum(-1, keepdim=True)
    return -prob.gather(-1, targets.long().unsqueeze(-1)).log().mean()


def softmax_loss_shifted(logits: Tensor, targets: Tensor) -> Tensor:
    """`softmax_loss_by_hand` as F.cross_entropy does it: subtract each row's maximum first.

    Softmax does not change when a constant is added to a row, and no exponent is above 0 then. The
    log is taken of the sum alone, so that a probability too small for a float costs nothing either.
    """
    logits = logits - logits.amax(-1, keepdim=True)
    logprob = logits - logits.exp().sum(-1, keepdim=True).log()
    return -logprob.gather(-1, targets.long().unsqueeze(-1)).mean()
