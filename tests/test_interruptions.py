"""Training that is interrupted or stopped: nothing is lost, nothing is done twice."""

import os
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from pymlp import MLP, MLPConfig, RunConfig, TrainConfig, Trainer, stepper
from pymlp.batches import Batches
from pymlp.callbacks import Callback
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
    at = Batches.at

    def stopped(self, step, limit):
        trainer.stop()
        return at(self, step, limit)

    monkeypatch.setattr(Batches, "at", stopped)
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
        part.counter[0] = len(part)
        steps.end(part, seconds)
        assert steps._at_once == length
    part = steps.begin(1000)
    part.counter[0] = 1  # interrupted: a step of ten seconds
    steps.end(part, 10.0)
    assert steps._at_once == 1


# --- an interruption at any line of Python --------------------------------------------------------

# The code that a KeyboardInterrupt comes between two lines of. All of its lines, each time that
# they are reached, take minutes: PYMLP_EVERY_LINE=1. Otherwise a sample of them is interrupted.
TRACED = (str(Path(stepper.__file__).parent), str(Path(torch.optim.__file__).parent))
EVERY_LINE = os.environ.get("PYMLP_EVERY_LINE") == "1"


class Told(Callback):
    """The losses that a callback is told, by step: one that was interrupted is told again."""

    def __init__(self):
        self.losses = {}

    def on_steps(self, trainer, losses):
        first = trainer.step - len(losses)
        self.losses |= {first + i: loss for i, loss in enumerate(losses.tolist())}


def fit_with_trace(trainer, trace):
    """`fit` with ``trace`` called at each traced line; whether it came to its end."""

    def enter(frame, event, argument):
        return line if frame.f_code.co_filename.startswith(TRACED) else None

    def line(frame, event, argument):
        if event == "line":
            trace(frame.f_code.co_filename, frame.f_lineno)
        return line

    sys.settrace(enter)
    try:
        trainer.fit()
        return True
    except KeyboardInterrupt:
        return False
    finally:
        sys.settrace(None)


def everything(trainer, told, directory):
    """All that a run leaves: the last checkpoint has model, average, optimizer and batches."""
    history = trainer.history
    files = ("state.safetensors", "model.safetensors", "best.safetensors", "metrics.jsonl")
    return {
        "losses": history.losses.tolist(),
        "norms": None if history.grad_norms is None else history.grad_norms.tolist(),
        "evals": history.evals,
        "best": history.best,
        "told": told.losses,
        "files": {name: (directory / name).read_bytes() for name in files},
    }


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("native", {"optimizer": "adamw"}),
        ("autograd", {"optimizer": "adamw", "sparse_embedding": True}),
        ("reference", {"optimizer": "momentum", "max_grad_norm": 0.5, "log_grad_norm": True}),
    ],
)
def test_an_interruption_at_any_line_changes_nothing(engine, options, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # milliseconds each
    config = RunConfig(
        steps=6, batch_size=4, n_embd=2, n_hidden=4, engine=engine, average=2, log_every=2,
        eval_every=3, checkpoint_every=4, lr=0.01, **options,
    )  # fmt: skip

    def run(name):
        told = Told()
        trainer = config.trainer(DATA, [told])
        trainer.save(tmp_path / name)
        return trainer, told

    lines = []
    trainer, told = run("whole")
    assert fit_with_trace(trainer, lambda *line: lines.append(line))
    expected = everything(trainer, told, tmp_path / "whole")

    moments = [(line, nth) for line, count in Counter(lines).items() for nth in range(count)]
    if not EVERY_LINE:
        moments = random.Random(0).sample(moments, 150)
    for number, (line, nth) in enumerate(moments):
        left = nth

        def interrupt(*reached, line=line):
            nonlocal left
            if reached == line:
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt

        trainer, told = run(str(number))
        if not fit_with_trace(trainer, interrupt):
            # A run that was resumed does not know earlier norms, and others were told of its steps.
            if number % 2 and not config.log_grad_norm:
                saved = tmp_path / f"{number}-saved"
                trainer.save(saved)
                again = Trainer.resume(saved, DATA)
                again.fit()
                told.losses = expected["told"]
                assert everything(again, told, saved) == expected, (line, nth)
                continue
            trainer.fit()
        assert everything(trainer, told, tmp_path / str(number)) == expected, (line, nth)


def test_parameters_set_after_an_interruption_stay(monkeypatch):
    """The state of before an interrupted update is put back once, and not again later."""
    trainer = RunConfig(steps=6, batch_size=4, n_hidden=4, engine="autograd").trainer(DATA)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.SGD, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    with torch.no_grad():
        trainer.model.hidden.bias.fill_(7.0)
    monkeypatch.setattr(type(trainer.engine), "_gathered", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert trainer.model.hidden.bias.eq(7.0).all()


def test_a_save_before_the_last_evaluation_does_not_lose_it(tmp_path):
    class Saver(Callback):
        def on_log(self, trainer, loss):
            if trainer.step == 6:
                trainer.save(tmp_path / "run")

    config = RunConfig(steps=6, batch_size=4, n_hidden=4, log_every=3, eval_every=3)
    history = config.trainer(DATA, [Saver()]).fit()
    assert Trainer.resume(tmp_path / "run", DATA).history.evals == history.evals
    assert len(history.evals) == 2
