"""Table 1 of Bengio et al. (2003): what they trained on the Brown corpus, and what it reached.

Their text had 1,181,041 tokens and a vocabulary of 16,383, from a tokenisation that is not to be
had; other tokenisations give other perplexities, of which only ratios may be compared.
"""

from __future__ import annotations

from typing import NamedTuple


class Figures(NamedTuple):
    """Perplexities of the paper; None where it gives none."""

    train: int | None
    valid: int | None
    test: int | None


class Neural(NamedTuple):
    """A neural row. Order n counts the token that is predicted: there are n - 1 of context."""

    name: str
    order: int
    n_hidden: int
    n_embd: int
    direct: bool
    mixed: bool
    paper: Figures


class Counted(NamedTuple):
    """A row of an n-gram model: "deleted interpolation" or "Kneser-Ney"."""

    name: str
    method: str
    order: int
    paper: Figures


NEURAL_ROWS = (
    Neural("MLP1", 5, 50, 60, True, False, Figures(182, 284, 268)),
    Neural("MLP2", 5, 50, 60, True, True, Figures(None, 275, 257)),
    Neural("MLP3", 5, 0, 60, True, False, Figures(201, 327, 310)),
    Neural("MLP4", 5, 0, 60, True, True, Figures(None, 286, 272)),
    Neural("MLP5", 5, 50, 30, True, False, Figures(209, 296, 279)),
    Neural("MLP6", 5, 50, 30, True, True, Figures(None, 273, 259)),
    Neural("MLP7", 3, 50, 30, True, False, Figures(210, 309, 293)),
    Neural("MLP8", 3, 50, 30, True, True, Figures(None, 284, 270)),
    Neural("MLP9", 5, 100, 30, False, False, Figures(175, 280, 276)),
    Neural("MLP10", 5, 100, 30, False, True, Figures(None, 265, 252)),
)
# The paper's Kneser-Ney is the back-off form of SRILM, ours is interpolated.
COUNTED_ROWS = (
    Counted("Del. Int.", "deleted interpolation", 3, Figures(31, 352, 336)),
    Counted("KN3", "Kneser-Ney", 3, Figures(None, 334, 323)),
    Counted("KN4", "Kneser-Ney", 4, Figures(None, 332, 321)),
    Counted("KN5", "Kneser-Ney", 5, Figures(None, 332, 321)),
)
