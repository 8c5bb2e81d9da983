"""N-best lists: fields are kept, scores are combined, the best of each list is found."""

import copy
import json
import math
import re

import pytest
import torch
from click.testing import CliRunner

from pymlp import MLP, MLPConfig, TrainConfig, Trainer, score
from pymlp.cli import main
from pymlp.data import Dataset
from pymlp.nbest import best, parse, rescore

LISTS = """\
0 ||| the cat sat ||| LM= -3 TM= -1 ||| -2.5
0 ||| the dog sat ||| LM= -4 TM= -1 ||| -2.25

1 ||| dog ||| -1
"""


@pytest.fixture(scope="module")
def trained():
    data = Dataset.from_lines([line.split() for line in ("the cat sat", "the dog sat") * 10])
    torch.manual_seed(0)
    return Trainer(MLP(MLPConfig(len(data.vocabulary))), data, TrainConfig(steps=1))


def test_scores_are_combined(trained):
    model, vocabulary = trained.model, trained.data.vocabulary
    texts = ["the cat sat", "the dog sat", "dog"]
    log_probs = [found.log_prob for found in score(model, vocabulary, texts)]
    found = list(rescore(model, vocabulary, parse(LISTS.splitlines()), weight=0.5))
    assert [x.hypothesis.id for x in found] == ["0", "0", "1"]
    assert [x.hypothesis.text for x in found] == texts
    assert [x.log_prob for x in found] == pytest.approx(log_probs)
    combined = [s + 0.5 * x for s, x in zip((-2.5, -2.25, -1), log_probs, strict=True)]
    assert [x.combined for x in found] == pytest.approx(combined)
    favoured = combined.index(max(combined[:2]))
    assert [x.hypothesis.text for x in best(found)] == [texts[favoured], "dog"]
    # Of equals the first; lists of more lines than are read at once are one list.
    many = list(rescore(model, vocabulary, parse(["7 ||| dog ||| 0"] * 10_001)))
    assert list(best(many)) == [many[0]]


@pytest.mark.parametrize("line", ["dog", "0 ||| dog", "0 ||| dog ||| LM= -3", "|||"])
def test_other_lines_are_named(line):
    message = "n-best line 3: expected 'id ||| text ||| ... ||| score'"
    with pytest.raises(ValueError, match=re.escape(message)):
        list(parse(["", "0 ||| cat ||| 1", line]))


def test_command(trained, tmp_path):
    trained.save(tmp_path / "run")
    arguments = ["rescore", str(tmp_path / "run"), "--weight", "2"]
    result = CliRunner().invoke(main, arguments, input=LISTS)
    expected = list(rescore(trained.model, trained.data.vocabulary, parse(LISTS.splitlines()), 2.0))
    assert result.stdout.splitlines() == [
        f"{x.hypothesis.line} ||| {x.log_prob:.4f} ||| {x.combined:.4f}" for x in expected
    ]
    # What is printed can be rescored again.
    assert [x.score for x in parse(result.stdout.splitlines())] == pytest.approx(
        [x.combined for x in expected], abs=1e-4
    )
    short = CliRunner().invoke(main, [*arguments, "--one-best", "--json"], input=LISTS)
    objects = [json.loads(line) for line in short.stdout.splitlines()]
    assert [x["text"] for x in objects] == [x.hypothesis.text for x in best(expected)]
    wrong = CliRunner().invoke(main, arguments, input="dog\n")
    assert wrong.exit_code == 1
    assert "n-best line 1" in wrong.stderr


@pytest.mark.parametrize("score", ["nan", "inf", "-inf", "1_0", "1e999", "0x1p3", "\u0661", "1,5"])
def test_scores_are_finite_decimal_numbers(score):
    with pytest.raises(ValueError, match=r"n-best line 1: expected .* a finite decimal number"):
        list(parse([f"0 ||| {'dog ' * 50}||| {score}"]))
    plain = ["0 ||| dog ||| +1.5e1", "|||dog|||.5", "0 ||| dog ||| -3."]
    assert [x.score for x in parse(plain)] == [
        15.0, 0.5, -3.0
    ]  # fmt: skip


def test_no_score_is_decided_by_its_position(trained):
    for spoilt, weight in ((torch.nan, 1.0), (None, math.nan), (None, math.inf)):
        model = copy.deepcopy(trained.model)
        if spoilt is not None:
            torch.nn.init.constant_(model.output.bias, spoilt)
        with pytest.raises(ValueError, match=r"log-probability of 'dog' is nan|weight must be fin"):
            list(rescore(model, trained.data.vocabulary, parse(["0 ||| dog ||| 1"]), weight))
