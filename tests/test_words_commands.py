"""The command line on a corpus of words: preset bengio, and what is done with its models."""

import json
import random
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from pymlp.cli import main
from pymlp.commands.common import data_of
from pymlp.data import load
from pymlp.inference import token_losses
from pymlp.rundir import RunDirectory
from pymlp.sources import config_of

WORDS = [f"w{i}" for i in range(30)]
TRAIN = ["--steps", 40, "--batch-size", 8, "--eval-every", 20, "--split", "400,100,rest"]


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def objects(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text, and a run with preset bengio on it."""
    folder = tmp_path_factory.mktemp("words")
    draw = random.Random(1)
    lines = (" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(150))
    (folder / "text.txt").write_text("\n".join([*lines, "once upon a time"]) + "\n")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    arguments = ["--preset", "bengio", "--data", folder / "text.txt", "--out", folder / "run"]
    run("train", *arguments, *TRAIN)
    yield folder
    torch.set_num_threads(before)


def test_the_preset_decides_about_the_data(folder):
    config = RunDirectory.open(folder / "run").config()
    assert {name: config["data"][name] for name in ("tokens", "min_count", "split")} == {
        "tokens": "word",
        "min_count": 4,
        "split": "400,100,rest",
    }
    vocabulary = RunDirectory.open(folder / "run").vocabulary()
    assert vocabulary.tokens[0] == "</s>"
    assert set(vocabulary.tokens[1:]) == {*WORDS, "<unk>"}
    assert config["model"]["block_size"] == 4


def test_a_token_file_has_decided_about_its_vocabulary(folder):
    prepared = folder / "text.tokens"
    run("prepare", folder / "text.txt", "--tokens", "word", "--min-count", 2, "--out", prepared)
    out = folder / "prepared"
    run("train", "--preset", "bengio", "--data", prepared, "--out", out, *TRAIN)
    assert RunDirectory.open(out).config()["data"]["split"] == "400,100,rest"


@pytest.mark.parametrize("context", [[], ["--context", "across"], ["--context", "reset"]])
def test_a_file_is_scored_as_the_model_was_trained(folder, context):
    opened = RunDirectory.open(folder / "run")
    result = run("score", folder / "run", folder / "text.txt", "--json", "--per-token", *context)
    *lines, total = objects(result)
    data = data_of(opened)
    if "reset" in context:
        data = load(folder / "text.txt", 4, opened_config(opened, context="reset"))
    examples = data.stream.examples(4)
    expected = -token_losses(opened.model(), examples.tokens, examples.targets).sum().item()
    assert total["log_prob"] == pytest.approx(expected)
    assert total["tokens"] == len(examples)
    assert total["oov"] == 4
    for line in lines:
        assert sum(x["log_prob"] for x in line["per_token"]) == pytest.approx(line["log_prob"])


def opened_config(opened, **changes):
    return replace(config_of(opened.config()["data"]), **changes)


def test_words_are_sampled(folder):
    opened = RunDirectory.open(folder / "run")
    model, vocabulary = opened.model(), opened.vocabulary()
    arguments = ["sample", folder / "run", "--json", "--max-length", 6, "--prefix", "w1 w2"]
    arguments += ["--context", "reset"]
    (coldest,) = {
        sample["text"]
        for sample in objects(run(*arguments, "-n", 5, "--temperature", 0))[0]["samples"]
    }
    words = coldest.split()
    assert words[:2] == ["w1", "w2"]
    context = [0, 0, *vocabulary.encode("w1 w2")]
    for word in words[2:]:
        following = model(torch.tensor([context])).argmax().item()
        assert vocabulary.tokens[following] == word
        context = [*context[1:], following]
    for sample in objects(run(*arguments, "-n", 50, "--top-k", 3))[0]["samples"]:
        context = [0, 0, *vocabulary.encode("w1 w2")]
        for id in vocabulary.encode(sample["text"])[2:]:
            likeliest = model(torch.tensor([context])).topk(3).indices
            assert id in likeliest
            context = [*context[1:], id]


def test_a_model_of_running_text_is_sampled_as_one(folder):
    opened = RunDirectory.open(folder / "run")
    model, vocabulary = opened.model(), opened.vocabulary()
    arguments = ["sample", folder / "run", "--json", "-n", 4, "--temperature", 0]
    context = [0] * 4
    for sample in objects(run(*arguments, "--max-length", 3))[0]["samples"]:
        line = vocabulary.encode(sample["text"])
        for id in [*line, 0][:3]:
            assert id == model(torch.tensor([context])).argmax().item()
            context = [*context[1:], id]
        if len(line) == 3:
            context = [*context[1:], 0]


def test_the_embedding_is_looked_at(folder):
    pytest.importorskip("matplotlib")
    (found,) = objects(run("nearest", folder / "run", "w3", "-k", 4, "--json"))
    assert len(found["nearest"]) == 4
    out = folder / "pictures"
    arguments = ["--embedding", "--labels", 5, "--out", out]
    result = run("plot", folder / "run", *arguments)
    assert [path.name for path in out.iterdir()] == ["embedding.png"]
    assert result.stderr == ""
