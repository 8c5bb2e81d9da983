"""Nearest tokens: by angle, not by length."""

import json

import pytest
import torch
from click.testing import CliRunner

from pymlp import MLP, MLPConfig, nearest
from pymlp.cli import main
from pymlp.config import TrainConfig
from pymlp.data import Dataset, Vocabulary
from pymlp.trainer import Trainer

VOCABULARY = Vocabulary((".", *"abcd"))


def make_model():
    model = MLP(MLPConfig(5, n_embd=2, n_hidden=1))
    rows = torch.tensor([[1.0, 0.0], [3.0, 4.0], [30.0, 40.0], [-3.0, -4.0], [4.0, 3.0]])
    model.embedding.weight = torch.nn.Parameter(rows)
    return model


def test_neighbours_are_ordered_by_cosine():
    found = nearest(make_model(), VOCABULARY, "a")
    assert [token for token, _ in found] == ["b", "d", ".", "c"]
    assert [x for _, x in found] == pytest.approx([1.0, 0.96, 0.6, -1.0])
    assert nearest(make_model(), VOCABULARY, ".", k=1) == [("d", pytest.approx(0.8))]


def test_several_tokens_have_a_list_each():
    expected = [nearest(make_model(), VOCABULARY, token, k=2) for token in ("a", ".")]
    for tokens in (["a", "."], ("a", "."), iter("a.")):
        assert nearest(make_model(), VOCABULARY, tokens, k=2) == expected
    assert nearest(make_model(), VOCABULARY, ["a"], k=2) == expected[:1]
    with pytest.raises(ValueError, match="nearest: character 'x'"):
        nearest(make_model(), VOCABULARY, ["a", "x"])
    with pytest.raises(TypeError, match="nearest: a token must be a str, got 1"):
        nearest(make_model(), VOCABULARY, [1])


def test_a_token_that_is_spelled_as_the_boundary():
    vocabulary = Vocabulary((".", "a", "b", "c", "."))
    assert nearest(make_model(), vocabulary, ".", k=1) == [("a", pytest.approx(0.96))]


@pytest.mark.parametrize(
    ("token", "k", "message"),
    [
        ("x", 3, r"character 'x' \(U\+0078\) is not in the vocabulary of 5 tokens"),
        ("a", 0, "k must be at least 1, got 0"),
    ],
)
def test_errors(token, k, message):
    with pytest.raises(ValueError, match=f"nearest: {message}"):
        nearest(make_model(), VOCABULARY, token, k)
    with pytest.raises(ValueError, match="the vocabulary has 2 tokens, the model 5"):
        nearest(make_model(), Vocabulary((".", "a")), "a")


def test_command(tmp_path):
    data = Dataset.from_lines([["the", "cat", "sat"], ["the", "dog", "sat"]] * 10)
    model = MLP(MLPConfig(len(data.vocabulary), n_embd=2, n_hidden=2))
    Trainer(model, data, TrainConfig(steps=1)).save(tmp_path / "run")
    run = str(tmp_path / "run")
    result = CliRunner().invoke(main, ["nearest", run, "cat", "dog", "-k", "2", "--json"])
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert [found["token"] for found in objects] == ["cat", "dog"]
    expected = nearest(model, data.vocabulary, "dog", k=2)
    assert [(x["token"], x["similarity"]) for x in objects[1]["nearest"]] == expected
    assert len(CliRunner().invoke(main, ["nearest", run, "cat"]).stdout.splitlines()) == 4
    missing = CliRunner().invoke(main, ["nearest", run, "bird"])
    assert missing.exit_code == 1
    assert "word 'bird' is not in the vocabulary" in missing.stderr
