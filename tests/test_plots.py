"""Pictures: the numbers that are drawn, not how they look."""

import math
import sys

import pytest
import torch

from pymlp.data import Vocabulary
from pymlp.history import Evaluation
from pymlp.plots import embedding_figure, loss_figure, save_figure, undrawable

pytest.importorskip("matplotlib")

ABC = Vocabulary((".", "a", "b", "$"))


def lines(figure):
    (axes,) = figure.axes
    return {
        line.get_label(): list(zip(*map(list, line.get_data()), strict=True))
        for line in axes.get_lines()
    }


def labels(figure):
    (axes,) = figure.axes
    return {text.get_text(): text.get_position() for text in axes.texts}


def test_loss_is_averaged_in_log10():
    losses = torch.tensor([10.0, 1000.0, 1.0, 100.0, 0.1])
    figure = loss_figure(losses, [Evaluation(2, 100.0, 1000.0), Evaluation(5, 1.0, 10.0)], window=2)
    assert lines(figure) == {
        "batch, mean of 2 steps": [(2, 2.0), (4, 1.0), (5, pytest.approx(-1.0))],
        "train": [(2, 2.0), (5, 0.0)],
        "dev": [(2, 3.0), (5, 1.0)],
    }
    assert "log10" in figure.axes[0].get_ylabel()


def test_a_loss_of_zero_can_be_drawn():
    figure = loss_figure(torch.zeros(3), window=1)
    assert all(math.isfinite(y) for _, y in lines(figure)["batch, mean of 1 steps"])


def test_long_runs_make_200_points():
    assert len(lines(loss_figure(torch.ones(200_000)))["batch, mean of 1000 steps"]) == 200


def test_two_dimensions_are_drawn_as_they_are():
    embedding = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    figure = embedding_figure(embedding, ABC)
    assert labels(figure) == {".": (0, 1), "a": (2, 3), "b": (4, 5), "$": (6, 7)}
    assert figure.axes[0].get_xlabel() == "embedding[0]"


def test_more_dimensions_are_projected_on_principal_components():
    # All spread lies along (3, 4, 0), a little of it along (0, 0, 1).
    along = torch.tensor([-3.0, -1.0, 1.0, 3.0])
    across = torch.tensor([1.0, -1.0, -1.0, 1.0])
    embedding = torch.stack([0.6 * along, 0.8 * along, across], dim=1) + 7
    figure = embedding_figure(torch.nn.Parameter(embedding), ABC)
    points = torch.tensor(list(labels(figure).values()))
    torch.testing.assert_close(points, torch.stack([along, across], dim=1))
    mirrored = embedding_figure(-embedding, ABC)
    points = torch.tensor(list(labels(mirrored).values()))
    torch.testing.assert_close(points, -torch.stack([along, across], dim=1))
    assert figure.axes[0].get_xlabel() == (
        "principal component 1 of 3 dimensions (83% of the variance)"
    )


def test_frequent_tokens_are_named_and_all_are_drawn():
    embedding = torch.arange(8.0).view(4, 2)
    figure = embedding_figure(embedding, ABC, torch.tensor([5, 1, 7, 5]), n_labels=2)
    assert labels(figure) == {"b": (4, 5), ".": (0, 1)}
    named, others = figure.axes[0].collections
    assert named.get_offsets().tolist() == [[4, 5], [0, 1]]
    assert others.get_offsets().tolist() == embedding.tolist()
    assert labels(embedding_figure(embedding, ABC, n_labels=1)) == {".": (0, 1)}
    with pytest.raises(ValueError, match=r"counts must have shape \(4,\), got \(3,\)"):
        embedding_figure(embedding, ABC, torch.ones(3))
    with pytest.raises(ValueError, match="n_labels must be at least 0, got -1"):
        embedding_figure(embedding, ABC, n_labels=-1)


def test_one_dimension():
    embedding = torch.tensor([[3.0], [1.0], [2.0], [0.0]])
    assert labels(embedding_figure(embedding, ABC))["b"] == (2, 0)


def test_saved_whole(tmp_path):
    save_figure(loss_figure(torch.ones(3)), tmp_path / "loss.png")
    save_figure(embedding_figure(torch.ones(4, 3), ABC), tmp_path / "embedding.svg")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "embedding.svg").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="there are no losses"):
        loss_figure(torch.ones(0))
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        loss_figure(torch.ones(3), window=0)
    with pytest.raises(ValueError, match=r"expected embedding of shape \(4, E\), got \(3, 2\)"):
        embedding_figure(torch.ones(3, 2), ABC)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install pymlp\[plot\]"):
        loss_figure(torch.ones(3))


def test_labels_are_drawn_in_the_fonts_that_have_them(tmp_path, recwarn, caplog):
    # U+20D2 is in a font of matplotlib that is not its usual one; no font has private characters.
    tokens = ("</s>", "x" * 300_000, "\u20d2", "\U000fffff$1$", "\t\ud800")
    words = Vocabulary(tokens, separator=" ")
    assert undrawable(tokens) == "\t\ud800\U000fffff"
    figure = embedding_figure(torch.randn(5, 2), words)
    assert list(labels(figure)) == ["</s>", "x" * 39 + "…", "\u20d2", "U+FFFFF$1$", "U+0009U+D800"]
    save_figure(figure, tmp_path / "embedding.png")
    assert not recwarn.list
    assert not caplog.records


def test_an_embedding_that_is_not_finite_has_no_map():
    with pytest.raises(ValueError, match="the embedding is not finite"):
        embedding_figure(torch.full((4, 3), torch.nan), ABC)
