"""Many models at once: the bits of each alone, whatever happens to the others."""

import json
import re
import threading
import time
from dataclasses import replace

import pytest
import torch

from pymlp import MLP, MLPConfig, RunConfig, TrainConfig, Trainer, lecture_init, train_many
from pymlp.data import Dataset, names
from pymlp.many import TrainingInterrupted
from pymlp.results import Results

DATA = Dataset.from_lines(names()[:300])
BASE = RunConfig(steps=300, batch_size=8, n_embd=3, n_hidden=16, eval_every=100)
CONFIGS = [
    BASE,
    replace(BASE, seed=5, lr=0.3),
    replace(BASE, seed=5, n_hidden=33, n_embd=2, optimizer="adamw", lr=0.01, init="lecture"),
    replace(BASE, dtype="float64", max_grad_norm=0.5, steps=500, eval_every=0),
    replace(BASE, engine="autograd"),
    replace(BASE, dtype="float16"),
]
ENDLESS = replace(BASE, steps=10_000_000)


def same_parameters(model, other):
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def alone(config):
    """What a person would write for one model."""
    torch.manual_seed(config.seed)
    model = MLP(MLPConfig(len(DATA.vocabulary), 3, config.n_embd, config.n_hidden))
    if config.init == "lecture":
        lecture_init(model, config.seed)
    settings = {name: getattr(config, name) for name in TrainConfig.__dataclass_fields__}
    trainer = Trainer(model.to(getattr(torch, config.dtype)), DATA, TrainConfig(**settings))
    return trainer, trainer.fit()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_each_model_has_the_bits_of_the_same_model_alone(workers):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    results = train_many(CONFIGS, DATA, workers)
    assert torch.equal(torch.get_rng_state(), before)
    assert [result.config for result in results] == CONFIGS
    for result, config in zip(results, CONFIGS, strict=True):
        trainer, history = alone(config)
        assert same_parameters(result.model, trainer.model)
        assert (result.train_loss, result.dev_loss) == history.evals[-1][1:]
        assert (result.best_dev_loss, result.best_step) == (history.best.dev, history.best.step)
        assert (result.step, result.error) == (config.steps, None)
        assert result.seconds > 0
        assert result.steps_per_second == pytest.approx(config.steps / result.seconds)
    assert [result.engine for result in results] == ["native"] * 4 + ["autograd"] * 2


def test_one_model_that_diverges_does_not_stop_the_others():
    diverging = replace(BASE, lr=1e30)
    results = train_many([BASE, diverging, BASE], DATA, 2)
    assert "training diverged" in results[1].error
    assert (results[1].train_loss, results[1].dev_loss) == (None, None)
    assert re.search(rf" at step {results[1].step} \(", results[1].error)
    assert results[0].error is results[2].error is None
    assert same_parameters(results[0].model, results[2].model)


def test_one_model_without_memory_does_not_stop_the_others():
    results = train_many([replace(BASE, steps=2**47), BASE], DATA, 1)
    assert results[0].error.startswith("RuntimeError: ")
    assert (results[0].step, results[1].error) == (0, None)


def test_the_table():
    configs = [replace(BASE, lr=lr, steps=50) for lr in (0.0001, 1e30, 0.5)]
    results = train_many(configs, DATA)
    ranked = results.by_dev_loss()
    assert [result.config.lr for result in ranked] == [0.5, 0.0001, 1e30]
    assert list(results[1:]) == [results[1], results[2]]
    rows = json.loads(json.dumps(results.rows()))
    assert [row["lr"] for row in rows] == [0.0001, 1e30, 0.5]
    assert rows[0]["dev_loss"] == results[0].dev_loss
    assert (rows[0]["n_hidden"], rows[0]["engine"]) == (16, "native")
    head, first, _, last = str(ranked).splitlines()
    # The fields that differ, then the figures.
    assert head.split()[:4] == ["lr", "step", "train", "loss"]
    assert first.split()[:2] == ["0.5", "50"]
    assert last.split()[0] == "1e+30"
    assert last.endswith(results[1].error)
    # A loss has four decimals, zeros too.
    short = replace(results[0], train_loss=2.4, dev_loss=2.4774, best_dev_loss=2.0)
    assert str(Results([short])).split()[-5:-2] == ["2.4000", "2.4774", "2.0000"]


def test_progress_counts_up_to_the_end():
    seen = []
    results = train_many([BASE] * 3, DATA, 2, progress=seen.append)
    assert seen[-1].step == seen[-1].steps == 900
    assert list(seen[-1].results) == list(results)
    assert [p.step for p in seen] == sorted(p.step for p in seen)


class Broken(Exception):
    pass


def test_an_exception_from_progress_stops_all():
    def progress(_):
        raise Broken

    with pytest.raises(Broken):
        train_many([ENDLESS] * 3, DATA, 2, progress)
    assert_workers_end()


def assert_workers_end():
    deadline = time.monotonic() + 5
    while any(t.name.startswith("train_many") for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("engine", ["native", "autograd"])
def test_ctrl_c_stops_all_and_keeps_what_is_done(engine, press_ctrl_c):
    sent = []

    def interrupt(progress):
        if progress.results and progress.step > BASE.steps and not sent:
            timer.start()
            sent.append(None)

    def press():
        sent[0] = time.perf_counter()
        press_ctrl_c()

    timer = threading.Timer(0.3, press)
    configs = [BASE, replace(ENDLESS, engine=engine), replace(ENDLESS, batch_size=500_000), ENDLESS]
    with pytest.raises(TrainingInterrupted, match="1 of 4 models done") as interrupted:
        train_many(configs, DATA, 2, interrupt)
    assert time.perf_counter() - sent[0] < 3  # they would take minutes
    assert_workers_end()
    first, second, third, last = interrupted.value.results
    assert (first.error, first.step) == (None, BASE.steps)
    assert second.error == f"interrupted at step {second.step}"
    assert third.error == f"interrupted at step {third.step}"
    assert last.error == "interrupted at step 0"
    assert isinstance(interrupted.value, KeyboardInterrupt)
    same = replace(ENDLESS, engine=engine, steps=second.step, eval_every=0).trainer(DATA)
    same.fit()
    assert same_parameters(second.model, same.model)


@pytest.mark.parametrize(
    ("configs", "options", "error", "message"),
    [
        ([], {}, ValueError, "there are no configs"),
        ([BASE, TrainConfig()], {}, TypeError, "must be of RunConfig, got TrainConfig.* index 1"),
        ([BASE], {"workers": 0}, ValueError, "workers must be at least 1, got 0"),
        ([BASE], {"workers": 1.5}, TypeError, "workers must be an int, got 1.5"),
    ],
)
def test_wrong_arguments(configs, options, error, message):
    with pytest.raises(error, match=message):
        train_many(configs, DATA, **options)


def test_data_without_dev():
    with pytest.raises(ValueError, match="train and dev must not be empty"):
        train_many([BASE], Dataset.from_lines(["a", "b"]))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"n_hidden": 0}, ValueError, "n_hidden must be at least 1, got 0"),
        ({"n_embd": 1.0}, TypeError, "n_embd must be an int"),
        ({"init": "zeros"}, ValueError, "init must be one of 'torch', .*'unigram', got 'zeros'"),
        ({"dtype": "int8"}, ValueError, "dtype must be one of .*, got 'int8'"),
        ({"dtype": "float16", "engine": "native"}, ValueError, "float64, not float16: use"),
        ({"lr": -1.0}, ValueError, "lr must be finite and above 0"),
    ],
)
def test_wrong_configs(settings, error, message):
    with pytest.raises(error, match=message):
        RunConfig(**settings)
