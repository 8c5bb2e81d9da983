"""The ways in: a trained model, a preset, another run's parameters; the same bits by each."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

import pymlp
from pymlp import RunConfig, TrainConfig, Trainer
from pymlp.cli import main
from pymlp.data import Dataset, names
from pymlp.presets import PRESETS

LINES = names()[:200]
DATA = Dataset.from_lines(LINES)
SMALL = {"steps": 30, "n_hidden": 8, "batch_size": 8, "eval_every": 20}
FLAGS = ["--steps", "30", "--n-hidden", "8", "--batch-size", "8", "--eval-every", "20"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, set_num_threads):
    """Each test in a directory of its own, on one thread: what is computed here is tiny."""
    monkeypatch.chdir(tmp_path)
    set_num_threads(1)
    (tmp_path / "lines.txt").write_text("\n".join(LINES))


def train(*arguments, code=0):
    result = CliRunner().invoke(main, ["train", "--json", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def same_parameters(model, other):
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- load -----------------------------------------------------------------------------------------


def test_load_gives_model_vocabulary_and_config():
    trainer = RunConfig(**SMALL | {"lr": 3.0}).trainer(DATA)
    trainer.save("run")
    model, vocabulary, config = pymlp.load("run")  # before the first step
    assert same_parameters(model, trainer.model)
    with pytest.raises(FileNotFoundError, match="has not been evaluated yet"):
        pymlp.load("run", best=True)
    trainer.fit()
    run = pymlp.load("run", best=True, device="cpu")
    assert same_parameters(pymlp.load("run").model, trainer.model)
    assert pymlp.evaluate(run.model, DATA.dev) == trainer.history.best.dev
    assert (run.vocabulary, run.config) == (DATA.vocabulary, trainer.config)
    assert vocabulary == DATA.vocabulary
    # Other settings, from these parameters.
    again = Trainer(run.model, DATA, replace(config, lr=0.01, steps=5))
    again.save("again")
    again.fit()
    assert same_parameters(pymlp.load("again").model, again.model)
    with pytest.raises(FileNotFoundError, match="no run in nowhere"):
        pymlp.load("nowhere")


# --- presets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["lecture", "lecture-2d"])
def test_a_preset_trains_the_same_bits_in_python_and_on_the_command_line(preset):
    train("--data", "lines.txt", "--preset", preset, "--out", "run", *FLAGS)
    trainer = RunConfig.from_preset(preset, **SMALL).trainer(DATA)
    trainer.fit()
    model, _, config = pymlp.load("run")
    assert same_parameters(model, trainer.model)
    assert config == trainer.config


def test_from_preset():
    config = RunConfig.from_preset("word-best", lr=0.5, dtype="float64")
    assert (config.n_embd, config.init, config.lr, config.dtype) == (128, "unigram", 0.5, "float64")
    assert config.train_config() == TrainConfig(**PRESETS["word-best"].train | {"lr": 0.5})
    with pytest.raises(ValueError, match=r"preset must be one of 'lecture-2d', .* got 'lectur'"):
        RunConfig.from_preset("lectur")
    with pytest.raises(TypeError, match="block_size"):
        RunConfig.from_preset("lecture", block_size=4)


def test_train_says_first_what_the_preset_brings():
    result = train("--data", "lines.txt", "--out", "run", *FLAGS)
    assert result.stderr.splitlines()[0] == (
        "preset lecture: block_size 3, n_embd 10, n_hidden 200, init lecture, steps 200,000, "
        "batch_size 32, lr 0.1, schedule step, lr_drop_factor 0.1; "
        "changed: steps 30, n_hidden 8, batch_size 8, eval_every 20"
    )


# --- options --------------------------------------------------------------------------------------


def test_betas_and_eps_reach_the_configuration():
    train("--data", "lines.txt", *FLAGS, "--out", "run", "--betas", "0.5", "0.75", "--eps", "1e-3")
    config = pymlp.load("run").config
    assert (config.betas, config.eps) == ((0.5, 0.75), 1e-3)


@pytest.mark.parametrize("eval_train", ["sample", "no"])
def test_train_is_evaluated_as_far_as_is_said(eval_train, monkeypatch):
    monkeypatch.setattr(sys.modules["pymlp.evaluate"], "SAMPLE_SIZE", 50)
    result = train("--data", "lines.txt", *FLAGS, "--out", "run", "--eval-train", eval_train)
    found = json.loads(result.stdout)["train_loss"]
    assert (found is None) == (eval_train == "no")
    assert ("train loss (sample) " in result.stderr) == (eval_train == "sample")


# --- the parameters of another run ----------------------------------------------------------------


def test_init_from_begins_with_the_parameters_data_and_sizes_of_a_run():
    train("--data", "lines.txt", *FLAGS, "--out", "first", "--block-size", 4, "--dtype", "float64")
    first = pymlp.load("first")
    result = train("--init-from", "first", "--steps", 10, "--lr", 0.01, "--out", "second")
    assert "; parameters, sizes and data of first" in result.stderr.splitlines()[0]
    data = pymlp.data.load("lines.txt", 4)
    config = RunConfig.from_preset("lecture", steps=10, lr=0.01).train_config()
    trainer = Trainer(first.model, data, config)
    trainer.fit()
    second = pymlp.load("second")
    assert same_parameters(second.model, trainer.model)
    assert second.config == config
    assert second.model.embedding.weight.dtype == torch.float64
    assert same_parameters(Trainer.resume("second").model, trainer.model)


def test_init_from_refuses_what_does_not_fit():
    train("--data", "lines.txt", *FLAGS, "--out", "first")
    with open("other.txt", "w") as file:
        file.write("\n".join(["éa", *LINES]))
    for arguments, code, message in (
        (["--n-hidden", 9], 2, "--n-hidden cannot be changed by --init-from: the model in first"),
        (["--init", "scaled"], 2, "--init and --init-from exclude each other"),
        (["--data", "other.txt"], 1, "its vocabulary of "),
        (["--data", "other.txt"], 1, "(differing: 'é'): train a new model"),
    ):
        result = train("--init-from", "first", "--out", "no", *arguments, code=code)
        assert message in result.stderr.splitlines()[-1]
    result = train("--init-from", "nowhere", code=2)
    assert "no run in nowhere" in result.stderr
    RunConfig(**SMALL).trainer(DATA).save("own")
    result = train("--init-from", "own", code=1)
    assert "the run in own does not say where its data come from: give --data" in result.stderr


# --- hints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "hinted"),
    [
        (["--optimizer", "adamw"], True),
        (["--optimizer", "adamw", "--init", "scaled"], False),
        ([], False),
    ],
)
def test_adamw_on_the_lectures_first_parameters(flags, hinted):
    result = train("--data", "lines.txt", *FLAGS, "--out", "run", *flags)
    assert ("hint: init lecture" in result.stderr) == hinted
    assert ("--init scaled" in result.stderr) == hinted


@pytest.mark.parametrize(("init", "hinted"), [("lecture", True), ("scaled", False)])
def test_words_that_begin_far_above_an_even_guess(init, hinted):
    with open("words.txt", "w") as file:
        file.writelines(f"{' '.join(names()[i : i + 3])}\n" for i in range(0, 120, 3))
    flags = ["--steps", "2", "--batch-size", "8", "--tokens", "word", "--init", init]
    result = train("--data", "words.txt", "--out", "run", *flags)
    assert ("hint: the first loss, " in result.stderr) == hinted
    if hinted:
        assert "hint: " not in train("--resume", "--out", "run", "--steps", 4).stderr
