"""What `pymlp train` shows meanwhile: a bar on a terminal, else lines."""

from io import StringIO
from types import SimpleNamespace

import torch
from rich.console import Console

from pymlp.commands import progress
from pymlp.config import TrainConfig
from pymlp.data import Dataset, names
from pymlp.model import MLP, MLPConfig
from pymlp.trainer import Trainer


def fit(reporter):
    data = Dataset.from_lines(names()[:100])
    model = MLP(MLPConfig(len(data.vocabulary), n_hidden=8))
    with reporter:
        Trainer(model, data, TrainConfig(steps=50, eval_every=25), [reporter]).fit()


def test_a_bar_on_a_terminal():
    screen = StringIO()
    fit(progress.Bar(Console(file=screen, force_terminal=True, width=120)))
    text = screen.getvalue()
    assert "50/50" in text
    assert "steps/s" in text
    assert "loss" in text
    assert "step       25  train loss" in text


def test_plain_lines_elsewhere():
    screen = StringIO()
    fit(progress.Lines(Console(file=screen)))
    lines = screen.getvalue().splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["step", n, "train", "loss"] for n in ("25", "50")
    ]
    assert "\x1b" not in screen.getvalue()


def test_plain_lines_come_while_steps_are_few(monkeypatch):
    """Every ten seconds, long before ``log_every`` steps are done."""
    clock = iter([0.0, 6.0, 12.0, 18.0, 24.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    screen, trainer = StringIO(), SimpleNamespace(step=0)
    lines = progress.Lines(Console(file=screen))
    for loss in (9.0, 5.0, 3.0, 2.0, 1.0):
        trainer.step += 1
        lines.on_steps(trainer, torch.tensor([loss]))
    assert [line.split() for line in screen.getvalue().splitlines()] == [
        ["step", "3", "loss", "4.0000", "0.2", "steps/s"],
        ["step", "5", "loss", "1.5000", "0.2", "steps/s"],
    ]
