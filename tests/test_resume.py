"""An interrupted run that is resumed ends with the same bits as one that was not."""

import os
import re
import subprocess
import sys

import pytest
import torch

from pymlp.callbacks import Callback
from pymlp.config import ENGINES, TrainConfig
from pymlp.data import Dataset, names
from pymlp.model import MLP, MLPConfig, lecture_init
from pymlp.rundir import RunDirectory
from pymlp.trainer import Trainer

DATA = Dataset.from_lines(names()[:100])
CONFIG = {
    "steps": 60,
    "batch_size": 4,
    "optimizer": "momentum",
    "schedule": "cosine",
    "engine": "reference",
    "log_every": 7,
    "eval_every": 20,
    "checkpoint_every": 25,
}


@pytest.fixture(autouse=True)
def one_thread(set_num_threads):
    """These models are far too small to share; beside other processes, waiting would cost more."""
    set_num_threads(1)


def begin(path, callbacks=(), frozen=False, **config):
    model = MLP(MLPConfig(len(DATA.vocabulary), n_embd=2, n_hidden=8))
    lecture_init(model)
    model.hidden.bias.requires_grad_(not frozen)
    trainer = Trainer(model, DATA, TrainConfig(**CONFIG | config), callbacks)
    trainer.save(path)
    return trainer


def resume(path, callbacks=()):
    return Trainer.resume(path, DATA, callbacks)


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def assert_same(path, expected):
    found = contents(path)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


class StopAt(Callback):
    """Stops as soon as one of the given steps is reached."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def on_steps(self, trainer, losses):
        if self.steps and trainer.step >= self.steps[0]:
            del self.steps[0]
            trainer.stop()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_stopped_and_resumed(tmp_path, engine, optimizer, frozen):
    config = {"engine": engine, "optimizer": optimizer, "steps": 300, "batch_size": 64}
    begin(tmp_path / "whole", frozen=frozen, **config).fit()
    stops = StopAt(3, 20, 130, 270)  # batches are drawn for 256 steps at once
    trainer = begin(tmp_path / "parts", [stops], frozen, **config)
    history = trainer.fit()
    parts = 1
    while trainer.step < 300:
        trainer = resume(tmp_path / "parts", [stops])
        history = trainer.fit()
        parts += 1
    assert parts > 4
    assert_same(tmp_path / "parts", contents(tmp_path / "whole"))
    assert history.evals == resume(tmp_path / "whole").history.evals
    assert history.best == resume(tmp_path / "whole").history.best
    assert trainer.model.hidden.bias.requires_grad is not frozen


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def kill_before(monkeypatch, call):
    """Let the process die before the n-th change that it makes to the files' directory."""
    calls = iter(range(call + 1))

    def dying(function):
        def wrapper(*arguments, **options):
            if next(calls) == call:
                raise Killed
            return function(*arguments, **options)

        return wrapper

    for name in ("replace", "fsync", "truncate"):
        monkeypatch.setattr(os, name, dying(getattr(os, name)))
    monkeypatch.setattr(RunDirectory, "write_metrics", dying(RunDirectory.write_metrics))


def live_again(path):
    """What a person does after a crash: resume if there is a run, else start it."""
    try:
        trainer = resume(path)
    except FileNotFoundError:
        trainer = begin(path)
    trainer.fit()


def test_killed_at_every_change_to_the_files(tmp_path):
    begin(tmp_path / "whole").fit()
    expected = contents(tmp_path / "whole")
    call = finished = 0
    while not finished:
        path = tmp_path / str(call)
        with pytest.MonkeyPatch.context() as patch:
            kill_before(patch, call)
            try:
                begin(path).fit()
                finished = True
            except Killed:
                call += 1
        live_again(path)
        assert_same(path, expected)
    assert call > 40


def test_killed_while_resuming(tmp_path):
    begin(tmp_path / "whole").fit()
    expected = contents(tmp_path / "whole")
    for call in range(8):
        path = tmp_path / str(call)
        with pytest.MonkeyPatch.context() as patch:
            kill_before(patch, 45)
            with pytest.raises(Killed):
                begin(path).fit()
        with pytest.MonkeyPatch.context() as patch:
            kill_before(patch, call)
            with pytest.raises(Killed):
                resume(path).fit()
        live_again(path)
        assert_same(path, expected)


def test_torn_writes_are_dropped(tmp_path):
    begin(tmp_path / "whole", log_every=10).fit()
    trainer = begin(tmp_path / "torn", [StopAt(30)], log_every=10)
    trainer.fit()
    assert 30 <= trainer.step < 60
    with open(tmp_path / "torn" / "metrics.jsonl", "a") as file:
        file.write('{"step": 56, "lr": 0.0')
    with open(tmp_path / "torn" / "losses.f64", "ab") as file:
        file.write(b"\x00" * 13)
    (tmp_path / "torn" / ".state.safetensors.tmp").write_bytes(b"half")
    assert RunDirectory.open(tmp_path / "torn").metrics()[-1]["step"] == 30
    resume(tmp_path / "torn").fit()
    assert_same(tmp_path / "torn", contents(tmp_path / "whole"))


LONG = {"steps": 1000, "checkpoint_every": 10}
KILLS = 8
PROGRAM = """
import os, random, signal, sys, time
from pathlib import Path

import torch

torch.set_num_threads(1)  # no threads, so that forks are safe: one import serves all processes
sys.path.insert(0, sys.argv[1])
import test_resume

path, losses = Path(sys.argv[2]), Path(sys.argv[2]) / "losses.f64"


def live():
    resume, begin = test_resume.resume, test_resume.begin
    trainer = resume(path) if path.exists() else begin(path, **test_resume.LONG)
    trainer.fit()


def stamp():
    return losses.stat().st_mtime_ns if losses.exists() else 0


test_resume.begin(path.with_name("warm"))  # torch.optim imports a second's worth on first use
draw = random.Random(5)
for _ in range(test_resume.KILLS):
    before = stamp()
    child = os.fork()
    if child == 0:
        live()
        os._exit(0)
    while stamp() == before:
        time.sleep(0.001)
    time.sleep(draw.uniform(0.0, 0.05))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
live()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_sigkill(tmp_path):
    """Real processes, killed wherever they are; they spend most of their time saving."""
    path = tmp_path / "killed"
    command = [sys.executable, "-c", PROGRAM, os.path.dirname(__file__), str(path)]
    subprocess.run(command, check=True, timeout=120)
    begin(tmp_path / "whole", **LONG).fit()
    assert_same(path, contents(tmp_path / "whole"))


# --- the run directory ----------------------------------------------------------------------------


def test_more_steps(tmp_path):
    config = {"schedule": "constant", "log_every": 10}
    begin(tmp_path / "whole", steps=90, **config).fit()
    begin(tmp_path / "parts", steps=60, **config).fit()
    trainer = Trainer.resume(tmp_path / "parts", DATA, steps=90)
    trainer.fit()
    expected, found = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    for name in ("config.toml", "model.safetensors", "losses.f64", "best.safetensors"):
        assert found[name] == expected[name]
    with pytest.raises(ValueError, match="has done 90 steps already, more than steps=10"):
        Trainer.resume(tmp_path / "parts", DATA, steps=10)


def test_a_run_is_not_overwritten_by_accident(tmp_path):
    begin(tmp_path / "run").fit()
    before = contents(tmp_path / "run")
    with pytest.raises(FileExistsError, match="already holds a run: resume it, overwrite it, or"):
        begin(tmp_path / "run")
    assert_same(tmp_path / "run", before)
    resume(tmp_path / "run").save(tmp_path / "run", overwrite=True)
    assert_same(tmp_path / "run", before)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="exists and is not a run directory"):
        resume(tmp_path / "run").save(tmp_path / "home", overwrite=True)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_resume_finds_its_data(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(names()[:100]))
    trainer = begin(tmp_path / "run")
    trainer.save(tmp_path / "run", source=str(file), overwrite=True)
    assert torch.equal(Trainer.resume(tmp_path / "run").data.train.tokens, DATA.train.tokens)
    file.write_text("\n".join(names()[:101]))
    with pytest.raises(ValueError, match=r"lines.txt: these are not the lines .* trained on"):
        Trainer.resume(tmp_path / "run")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"lines.txt"):
        Trainer.resume(tmp_path / "run")


def test_what_cannot_be_resumed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run in .*nowhere: expected a directory with"):
        Trainer.resume(tmp_path / "nowhere")
    begin(tmp_path / "run")
    with pytest.raises(ValueError, match="does not say where its data come from"):
        Trainer.resume(tmp_path / "run")
    other = Dataset.from_lines(names()[:100], split_seed=1)
    with pytest.raises(ValueError, match="these are not the lines"):
        Trainer.resume(tmp_path / "run", other)
    config = tmp_path / "run" / "config.toml"
    good = config.read_text()
    for bad in (good.replace("steps =", "stops ="), good.replace("[train]", "[training]"), "=="):
        config.write_text(bad)
        with pytest.raises(ValueError, match=r"config\.toml"):
            resume(tmp_path / "run")


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "overwritten": lambda content: b"\xff\xfe" + os.urandom(500),
}
USES = {
    "config.toml": resume,
    "vocab.json": lambda path: RunDirectory.open(path).vocabulary(),
    "state.safetensors": resume,
    "metrics.jsonl": resume,
    "losses.f64": resume,
    "model.safetensors": lambda path: RunDirectory.open(path).model(),
    "best.safetensors": lambda path: RunDirectory.open(path).model(best=True),
}


@pytest.mark.parametrize("name", USES)
def test_damaged_files_are_named_and_left_alone(tmp_path, name):
    begin(tmp_path / "run").fit()
    file = tmp_path / "run" / name
    good = file.read_bytes()
    for how, damage in DAMAGES.items():
        if (name, how) == ("losses.f64", "overwritten"):
            continue  # any bytes are losses
        file.write_bytes(damage(good))
        before = contents(tmp_path / "run")
        with pytest.raises(ValueError, match=re.escape(str(file))):
            USES[name](tmp_path / "run")
        assert_same(tmp_path / "run", before)


def test_parameters_of_another_model_are_refused(tmp_path):
    begin(tmp_path / "run").fit()
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("n_hidden = 8", "n_hidden = 9"))
    with pytest.raises(ValueError, match=r"not the model of config.toml: .* size mismatch"):
        resume(tmp_path / "run")
    assert config.read_text().count("n_hidden = 9") == 1


def test_models_of_a_run(tmp_path):
    trainer = begin(tmp_path / "run", lr=3.0, schedule="constant")
    run = RunDirectory.open(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"best.safetensors: the run has not been eval"):
        run.model(best=True)
    history = trainer.fit()
    assert history.best.step < 60
    tokens = DATA.dev.tokens[:5]
    assert torch.equal(run.model()(tokens), trainer.model(tokens))
    best = Trainer(run.model(best=True), DATA, TrainConfig(engine="reference"))
    assert best.evaluate("dev") == history.best.dev
    assert run.vocabulary() == DATA.vocabulary
