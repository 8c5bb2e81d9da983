"""The progress of training: a bar on a terminal and in a notebook, else lines."""

from io import StringIO
from types import SimpleNamespace

import pytest
import torch

from pymlp import MLP, MLPConfig, ProgressBar, RunConfig, TrainConfig, Trainer, progress, train_many
from pymlp.data import Dataset, names

DATA = Dataset.from_lines(names()[:100])


class Terminal(StringIO):
    def isatty(self):
        return True


class NotebookStream(StringIO):
    """A stream of ipykernel, which is no terminal."""


NotebookStream.__module__ = "ipykernel.iostream"


def fit(screen):
    model = MLP(MLPConfig(len(DATA.vocabulary), n_hidden=8))
    with ProgressBar(screen) as bar:
        Trainer(model, DATA, TrainConfig(steps=50, eval_every=25), [bar]).fit()
    return screen.getvalue()


@pytest.mark.parametrize("screen", [Terminal, NotebookStream])
def test_a_bar_on_a_terminal(screen):
    text = fit(screen())
    bar = text.rpartition("\r")[2]
    assert bar.startswith("[####################] 50/50  loss ")
    assert bar.endswith(" steps/s\n")
    assert "step       25  train loss" in text
    assert text.isascii()


def test_plain_lines_elsewhere():
    text = fit(StringIO())
    assert [line.split()[:4] for line in text.splitlines()] == [
        ["step", n, "train", "loss"] for n in ("25", "50")
    ]
    assert "\r" not in text


@pytest.mark.parametrize("screen", [Terminal, StringIO])
def test_long_evaluations_show_how_far_they_are(screen, monkeypatch):
    clock = iter([0.0, 6.0, 12.0, 18.0, 24.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    trainer, bar = SimpleNamespace(step=5), ProgressBar(file := screen())
    for done in (1000, 2000, 3000, 4000, 5000):
        bar.on_eval_progress(trainer, "train", done, 5000)
    live = ["2,000", "3,000", "4,000"]
    shown = [line for line in file.getvalue().replace("\r", "\n").splitlines() if line]
    assert shown == [
        f"evaluating train: {done} of 5,000 examples"
        for done in (live if screen is Terminal else ["3,000"])
    ]


def test_an_error_ends_the_line(monkeypatch):
    clock = iter([0.0, 1.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    screen, trainer = Terminal(), SimpleNamespace(step=0, config=TrainConfig(steps=9))
    with ProgressBar(screen) as bar:
        for trainer.step in (1, 2):
            bar.on_steps(trainer, torch.ones(1))
        assert not screen.getvalue().endswith("\n")
    assert screen.getvalue().endswith("2/9  loss 1.0000  1.0 steps/s  0:00:07 left\n")


def test_many_models_show_progress_when_asked(monkeypatch):
    configs = [RunConfig(steps=20, n_hidden=8, seed=seed) for seed in (1, 2)]
    monkeypatch.setattr(progress.sys, "stderr", screen := Terminal())
    train_many(configs, DATA, progress=False)
    assert screen.getvalue() == ""
    train_many(configs, DATA, progress=True)
    last = screen.getvalue().rpartition("\r")[2]
    assert last == "[####################] 40/40 steps  2 of 2 models ended\n"


def test_plain_lines_come_while_steps_are_few(monkeypatch):
    """Every ten seconds, long before ``log_every`` steps are done."""
    clock = iter([0.0, 6.0, 12.0, 18.0, 24.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    screen, trainer = StringIO(), SimpleNamespace(step=0)
    lines = ProgressBar(screen)
    for loss in (9.0, 5.0, 3.0, 2.0, 1.0):
        trainer.step += 1
        lines.on_steps(trainer, torch.tensor([loss]))
    assert [line.split() for line in screen.getvalue().splitlines()] == [
        ["step", "3", "loss", "5.6667", "0.2", "steps/s"],
        ["step", "5", "loss", "1.5000", "0.2", "steps/s"],
    ]


def test_a_closed_stderr_has_no_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    model = MLP(MLPConfig(len(DATA.vocabulary), n_hidden=8))
    with ProgressBar() as bar:
        assert Trainer(model, DATA, TrainConfig(steps=5), [bar]).fit().evals[-1].step == 5
    (trained,) = train_many([RunConfig(steps=5, n_hidden=8)], DATA, progress=True)
    assert trained.step == 5
