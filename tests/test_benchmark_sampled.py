"""The benchmark of what stands in for the exact softmax."""

import argparse

import pytest
from pymlp.benchmarks import sampled

from pymlp import PRESETS, RunConfig
from pymlp.data import DataConfig, load


@pytest.mark.parametrize("text", ["exact", "exact:", "exact-5:9", "nce:9", "other-5:9", "nce-x:9"])
def test_plans_that_say_nothing_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not like exact:1632"):
        sampled.Plan.parse(text)


def test_every_method_trains(tmp_path):
    text = tmp_path / "x.txt"
    text.write_text("the cat sat on the mat\nthe dog sat on the cat\n" * 100)
    data = load(text, 2, DataConfig("word", split="800,200,rest"))
    train = {**PRESETS["word-best"].train, "batch_size": 16, "lr": 0.01, "warmup_steps": 5}
    config = RunConfig(**train, n_embd=8, n_hidden=16)
    for plan in map(sampled.Plan.parse, ["exact:200", "sampled-4:200", "nce-4:200"]):
        row = sampled.train(plan, config, data)
        assert (row.method, row.noise, row.steps) == plan
        assert row.seconds > 0
        assert 1 < row.dev < 2.5  # of 7 words


def test_the_contrastive_loss_is_checked(monkeypatch):
    sampled.check_nce()
    loss = sampled.nce_loss
    monkeypatch.setattr(sampled, "nce_loss", lambda *arguments: 1.001 * loss(*arguments))
    with pytest.raises(AssertionError):
        sampled.check_nce()
