"""Pictures of a run: the loss by step, the embedding as a map of tokens. Needs matplotlib.

Figures are made with matplotlib's object interface: no pyplot, no window, no global state.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pymlp.data import Vocabulary
from pymlp.files import write_atomically
from pymlp.history import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# More tokens than this would lie on top of each other: those without a name become small.
MAX_LABELS = 200

# Characters of a label; longer tokens would cover the map, and take matplotlib half a minute.
_MAX_LABEL = 40

_NO_MATPLOTLIB = "plots need matplotlib: pip install pymlp[plot]"


def loss_figure(
    losses: Tensor, evals: Sequence[Evaluation] = (), window: int | None = None
) -> Figure:
    """The lecture's loss curve: log10 of the batch loss, averaged over windows of steps.

    Args:
        losses: (S,) batch loss of each step, in nats.
        evals: drawn as points, train and dev.
        window: steps averaged into a point; None makes about 200 points.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no losses, or ``window`` is less than 1.
    """
    if len(losses) == 0:
        raise ValueError("loss_figure: there are no losses to draw")
    if window is None:
        window = max(1, len(losses) // 200)
    if window < 1:
        raise ValueError(f"loss_figure: window must be at least 1, got {window}")
    figure = _figure()
    axes = figure.add_subplot()
    # A loss of exactly 0 has no logarithm.
    logs = losses.double().clamp_min(1e-12).log10()
    starts = range(0, len(logs), window)
    means = [logs[start : start + window].mean().item() for start in starts]
    ends = [min(start + window, len(logs)) for start in starts]
    axes.plot(ends, means, label=f"batch, mean of {window} steps", linewidth=1)
    for name in ("train", "dev"):
        heights = [math.log10(max(getattr(evaluation, name), 1e-12)) for evaluation in evals]
        axes.plot([evaluation.step for evaluation in evals], heights, "o-", label=name, ms=4)
    axes.set_xlabel("step")
    axes.set_ylabel("log10 of the loss (nats per token)")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def embedding_figure(
    embedding: Tensor,
    vocabulary: Vocabulary,
    counts: Tensor | None = None,
    n_labels: int = MAX_LABELS,
) -> Figure:
    """Each token at the place of its embedding row, as in the lecture.

    A label is in the first installed fonts that have its characters, beside matplotlib's own; a
    character that none has is drawn as its code point, such as U+4E2D. Long tokens are cut.
    More than two dimensions are projected onto the first two principal components, whose sign is
    that of their largest coordinate; a single one is drawn on a line.

    Args:
        embedding: (V, E), for instance ``model.embedding.weight``.
        vocabulary: of V tokens.
        counts: (V,) how often each token occurs; the most frequent ones are named. None names the
            first.
        n_labels: how many are named.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: ``embedding`` is not a matrix of as many rows as the vocabulary has tokens, or
            not finite, ``counts`` has another length, or ``n_labels`` is less than 0.
    """
    if embedding.dim() != 2 or len(embedding) != len(vocabulary):
        raise ValueError(
            f"embedding_figure: expected embedding of shape ({len(vocabulary)}, E), "
            f"got {tuple(embedding.shape)}"
        )
    if not embedding.isfinite().all():
        raise ValueError("embedding_figure: the embedding is not finite: it has no map")
    named = label_rows(vocabulary, counts, n_labels)
    points, labels = _to_plane(embedding.detach().cpu().double())
    figure = _figure(width=7.0, height=7.0)
    axes = figure.add_subplot()
    all_named = len(named) == len(vocabulary)
    for rows, size in ((named, 200), ([] if all_named else slice(None), 4)):
        x, y = points[rows].unbind(dim=1)
        axes.scatter(x.tolist(), y.tolist(), s=size, color="tab:blue", alpha=0.4, linewidths=0)
    names = [_clipped(vocabulary.tokens[row]) for row in named]
    fonts, missing = _fonts_of("".join(names))
    for row, name in zip(named, names, strict=True):
        x, y = points[row].tolist()
        label = "".join(_code_point(c) if c in missing else c for c in name)
        # A token is text, never matplotlib's mathematics.
        axes.text(x, y, label, ha="center", va="center", parse_math=False, fontfamily=fonts)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(alpha=0.3)
    return figure


def label_rows(
    vocabulary: Vocabulary, counts: Tensor | None = None, n_labels: int = MAX_LABELS
) -> list[int]:
    """The ids of the tokens that `embedding_figure` of the same arguments names."""
    if n_labels < 0:
        raise ValueError(f"embedding_figure: n_labels must be at least 0, got {n_labels}")
    if counts is None:
        return list(range(min(n_labels, len(vocabulary))))
    if counts.shape != (len(vocabulary),):
        raise ValueError(
            f"embedding_figure: counts must have shape ({len(vocabulary)},), "
            f"got {tuple(counts.shape)}"
        )
    order: list[int] = counts.sort(descending=True, stable=True).indices[:n_labels].tolist()
    return order


def undrawable(tokens: Iterable[str]) -> str:
    """The characters of tokens that no installed font has, sorted.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return "".join(sorted(_fonts_of("".join(map(_clipped, tokens)))[1]))


def _clipped(token: str) -> str:
    return token if len(token) <= _MAX_LABEL else f"{token[: _MAX_LABEL - 1]}…"


def _code_point(character: str) -> str:
    return f"U+{ord(character):04X}"


def _fonts_of(text: str) -> tuple[list[str], Set[str]]:
    """Installed fonts for a text, matplotlib's usual ones first, and the characters none has."""
    try:
        from matplotlib import font_manager, rcParams
    except ImportError as error:
        raise ImportError(_NO_MATPLOTLIB) from error
    fonts = list(rcParams["font.family"])
    missing = _without_glyph(set(text), fonts)
    # Fonts of another weight or style are left out: matplotlib would log that it has none such.
    others = {
        entry.name
        for entry in font_manager.fontManager.ttflist
        if entry.weight in (400, "normal", "regular") and entry.style == "normal"
    }
    for name in sorted(others):
        left = _without_glyph(missing, [name])
        if left < missing and not name.startswith("Last Resort"):  # which has boxes for all
            fonts.append(name)
            missing = left
    return fonts, missing


def _without_glyph(characters: Set[str], fonts: list[str]) -> Set[str]:
    """The ``characters`` that the font that matplotlib finds for ``fonts`` cannot draw."""
    from matplotlib import font_manager

    if not characters:
        return characters
    properties = font_manager.FontProperties(family=fonts)
    font = font_manager.get_font(font_manager.findfont(properties))
    # Fonts of pictures alone, as of emoji, have no outlines to scale.
    return {c for c in characters if not (font.scalable and font.get_char_index(ord(c)))}


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path``, in the format of its ending."""
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=120)
    write_atomically(path, content.getvalue())


def _to_plane(embedding: Tensor) -> tuple[Tensor, tuple[str, str]]:
    """Points (V, 2) and what the two axes are."""
    width = embedding.shape[1]
    if width == 1:
        return torch.cat([embedding, torch.zeros_like(embedding)], dim=1), ("embedding[0]", "")
    if width == 2:
        return embedding, ("embedding[0]", "embedding[1]")
    centred = embedding - embedding.mean(dim=0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    shares = (100 * sizes.square() / sizes.square().sum().clamp_min(1e-30)).tolist()
    first, second = (
        f"principal component {i} of {width} dimensions ({shares[i - 1]:.0f}% of the variance)"
        for i in (1, 2)
    )
    directions = directions[:2]
    # A direction and its opposite are the same to the decomposition, not to who compares pictures.
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return centred @ (directions * largest.sign()).T, (first, second)


def _figure(width: float = 8.0, height: float = 5.0) -> Figure:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(_NO_MATPLOTLIB) from error
    from pymlp.figure import ShownFigure

    return ShownFigure(figsize=(width, height), layout="constrained")
