"""Training that is interrupted or stopped: nothing is lost, nothing is done twice."""

import threading
import time

import pytest
import torch

from pymlp import MLP, MLPConfig, RunConfig, TrainConfig, Trainer, stepper
from pymlp.batches import Batches
from pymlp.data import Dataset

DATA = Dataset.from_lines(["emma", "olivia", "ava", "isabella", "sophia"] * 4)


def test_ctrl_c_leaves_a_trainer_that_goes_on(press_ctrl_c, monkeypatch):
    # Calls of the engine so long that it is interrupted within one.
    monkeypatch.setattr(stepper, "_UNINTERRUPTED_SECONDS", 10.0)
    steps = 100_000
    config = TrainConfig(steps=steps, batch_size=1, engine="native", eval_every=0, log_every=steps)

    def trainer():
        torch.manual_seed(0)
        return Trainer(MLP(MLPConfig(len(DATA.vocabulary))), DATA, config)

    interrupted, expected = trainer(), trainer()
    timer = threading.Timer(0.2, press_ctrl_c)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit()
    assert 0 < interrupted.step < steps
    history = interrupted.fit()
    assert torch.equal(history.losses, expected.fit().losses)


def test_a_trainer_can_be_stopped_within_a_step():
    config = TrainConfig(steps=1000, batch_size=1_000_000, engine="native", eval_every=0)
    torch.manual_seed(0)
    trainer = Trainer(MLP(MLPConfig(len(DATA.vocabulary), n_hidden=2000)), DATA, config)
    timer = threading.Timer(0.3, trainer.stop)
    timer.start()
    before = {name: p.clone() for name, p in trainer.model.state_dict().items()}
    start = time.perf_counter()
    history = trainer.fit()
    assert time.perf_counter() - start < 2  # one step takes several seconds
    assert trainer.step == len(history.losses) == 0
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.state_dict().items())


def test_a_stop_while_batches_are_drawn_is_not_lost(monkeypatch):
    trainer = RunConfig(steps=5, batch_size=4, n_hidden=8, eval_every=0).trainer(DATA)
    peek = Batches.peek

    def stopped(self, limit):
        trainer.stop()
        return peek(self, limit)

    monkeypatch.setattr(Batches, "peek", stopped)
    assert trainer.stepper.begin(5).stopping
    monkeypatch.undo()
    assert not trainer.stepper.begin(5).stopping


def test_an_interruption_before_the_engine_is_asked_skips_no_batch(monkeypatch):
    def trainer():
        return RunConfig(steps=50, batch_size=4, n_hidden=8, eval_every=0).trainer(DATA)

    interrupted, expected = trainer(), trainer()
    interrupted.stepper.run(3)

    def press(self, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainConfig, "learning_rate", press)
    with pytest.raises(KeyboardInterrupt):
        interrupted.stepper.run(50)
    monkeypatch.undo()
    assert torch.equal(interrupted.fit().losses, expected.fit().losses)


def test_a_run_that_ends_early_leaves_the_next_as_long(monkeypatch):
    """An event after a few steps, which are mostly the call, says little of the steps' pace."""
    monkeypatch.setattr(stepper, "_UNINTERRUPTED_SECONDS", 10.0)
    steps = RunConfig(steps=1000, batch_size=4, n_hidden=8, eval_every=0).trainer(DATA).stepper
    steps.run(1)
    steps._at_once = 400
    for until, seconds, length in [(3, 10.0, 400), (500, 10.0, 400), (903, 10.0, 400)]:
        part = steps.begin(until)
        part.done = len(part)
        steps.end(part, seconds)
        assert steps._at_once == length
    part = steps.begin(1000)
    part.done = 1  # interrupted: a step of ten seconds
    steps.end(part, 10.0)
    assert steps._at_once == 1
