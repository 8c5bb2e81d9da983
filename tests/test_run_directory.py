"""Run directories on disk: two processes, full disks, links, modes, kills and damaged files."""

import errno
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from pymlp import MLP, MLPConfig, RunConfig, TrainConfig, Trainer, files, run_lock, rundir, sources
from pymlp.data import Dataset, Vocabulary, names
from pymlp.run_lock import RunInUseError
from pymlp.rundir import RunDirectory

DATA = Dataset.from_lines(names()[:100])
CONFIG = {"steps": 20, "batch_size": 4, "log_every": 4, "eval_every": 10, "checkpoint_every": 5}
SETTINGS = RunConfig(n_embd=2, n_hidden=8, optimizer="adamw", average=10, **CONFIG)


@pytest.fixture(autouse=True)
def one_thread(set_num_threads):
    set_num_threads(1)


def begin(path, **options):
    trainer = SETTINGS.trainer(DATA)
    trainer.save(path, **options)
    return trainer


def contents(path):
    return {f.name: f.read_bytes() for f in path.iterdir() if f.name != ".lock"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    begin(path).fit()
    return contents(path)


def lay(path, files):
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def one_line(message):
    return "\n" not in str(message) and len(str(message)) < 600


# --- two processes --------------------------------------------------------------------------------

TRAIN = [sys.executable, "-m", "pymlp", "train", "--steps", "400", "--threads", "1", "--json"]


def start(*options, cwd):
    return subprocess.Popen(
        [*TRAIN, *options], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_default_runs_at_once_get_two_directories(tmp_path):
    pair = [start("--seed", str(seed), cwd=tmp_path) for seed in (1, 2)]
    outputs = [json.loads(process.communicate(timeout=120)[0]) for process in pair]
    assert sorted(output["out"] for output in outputs) == ["runs/lecture", "runs/lecture-2"]
    for output in outputs:
        run = RunDirectory.open(tmp_path / output["out"])
        assert run.train_config().seed == output["seed"]
        assert len(run.checkpoint().losses) == 400
    assert len(os.listdir(tmp_path / "runs")) == 2


HOLD = """
import sys
sys.path.insert(0, sys.argv[1])
import test_run_directory
trainer = test_run_directory.begin(test_run_directory.os.path.abspath(sys.argv[2]))
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def elsewhere(tmp_path):
    """Another process that trains in tmp_path / "run"."""
    command = [sys.executable, "-c", HOLD, os.path.dirname(__file__), str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.stdin.close()


def test_a_run_in_which_another_process_trains_is_left_alone(tmp_path, elsewhere):
    path = tmp_path / "run"
    before = contents(path)
    held = rf"{path} is in use: process {elsewhere.pid} on \S+ has been training there since \d"
    for use in (lambda: Trainer.resume(path, DATA), lambda: begin(path, overwrite=True)):
        with pytest.raises(RunInUseError, match=held) as caught:
            use()
        assert one_line(caught.value)
    with pytest.raises(FileExistsError, match=rf"already holds a run, process {elsewhere.pid} on"):
        begin(path)
    assert contents(path) == before
    assert RunDirectory.open(path).model().config.n_hidden == 8  # reading needs no lock
    elsewhere.kill()
    elsewhere.wait()
    Trainer.resume(path, DATA).fit()


def test_a_second_trainer_of_a_process_takes_over(tmp_path):
    begin(tmp_path / "whole").fit()
    first = begin(tmp_path / "run")
    second = Trainer.resume(tmp_path / "run", DATA)
    with pytest.raises(ValueError, match="these are not the lines"):
        Trainer.resume(tmp_path / "run", Dataset.from_lines(names()[:99]))
    with pytest.raises(RunInUseError, match="another Trainer of this process has taken over"):
        first.fit()
    second.fit()
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_a_forked_child_does_not_write(tmp_path, monkeypatch):
    trainer = begin(tmp_path / "run")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(RunInUseError, match=r"belongs to process .* make the Trainer in the proc"):
        trainer.fit()


def test_a_run_that_was_replaced_is_not_written_to(tmp_path):
    trainer = begin(tmp_path / "run")
    os.rename(tmp_path / "run", tmp_path / "moved")
    other = begin(tmp_path / "run")
    with pytest.raises(RunInUseError, match="was replaced by another run"):
        trainer.fit()
    other.fit()


def test_file_systems_without_locks_keep_nobody_out(tmp_path, monkeypatch):
    def unsupported(descriptor, operation):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(run_lock.fcntl, "flock", unsupported)
    with pytest.warns(RuntimeWarning, match="the file system has no locks"):
        begin(tmp_path / "run").fit()


# --- full disks -----------------------------------------------------------------------------------


class FullDisk:
    """Lets a number of bytes be written, then half of what is asked for, and then none."""

    def __init__(self, monkeypatch, room):
        self.room = room
        for name in ("pwrite", "fsync"):
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, function):
        def wrapper(descriptor, *arguments):
            if self.room <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if arguments:
                content = arguments[0][: max(1, min(len(arguments[0]), self.room))]
                arguments = (content, *arguments[1:])
                self.room -= len(content)
            return function(descriptor, *arguments)

        return wrapper


def test_fit_goes_on_when_a_full_disk_has_space_again(tmp_path):
    begin(tmp_path / "whole").fit()
    stopped = set()
    for room in range(1, 700, 60):
        path = tmp_path / str(room)
        trainer = begin(path)
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, room)
            try:
                trainer.fit()
            except OSError as error:
                stopped.add((error.errno, os.path.relpath(error.filename, path)))
        if room % 2:
            trainer.fit()
        Trainer.resume(path, DATA).fit()
        assert contents(path) == contents(tmp_path / "whole")
    assert stopped >= {(errno.ENOSPC, "metrics.jsonl"), (errno.ENOSPC, "losses.f64")}
    assert stopped <= {(errno.ENOSPC, name) for name in contents(tmp_path / "whole")}


def test_a_file_that_was_cut_meanwhile_is_written_again(tmp_path):
    begin(tmp_path / "whole").fit()
    trainer = begin(tmp_path / "run")
    run = trainer._run
    run.write_metrics([{"step": 1, "lr": 0.1, "loss": 3.0}])
    os.truncate(tmp_path / "run" / "metrics.jsonl", 3)
    run.write_metrics([{"step": 1, "lr": 0.1, "loss": 3.0}])
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text())["loss"] == 3.0


# --- links, modes, devices ------------------------------------------------------------------------


def test_replacing_follows_no_link_that_others_laid(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 2 * n)
    trap = tmp_path / f".out.{'0' * 16}.tmp"
    trap.symlink_to(precious)
    with pytest.raises(FileExistsError, match="out"):
        files.write_atomically(tmp_path / "out", b"new")
    assert precious.read_text() == "mine"
    assert trap.is_symlink()


def test_modes_and_links_stay(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(file)
    before = os.umask(0o027)
    try:
        files.write_atomically(link, b"one")  # makes what the link points to
        assert file.stat().st_mode & 0o777 == 0o640
        for mode in (0o600, 0o666, 0o604):
            file.chmod(mode)
            files.write_atomically(link, b"two")
            assert file.stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert file.read_bytes() == b"two"
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("fifo", "directory", "link"):
        with pytest.raises(FileExistsError, match=f"{name} is not a regular file"):
            files.write_atomically(tmp_path / name, b"")
    assert len(os.listdir(tmp_path)) == 3


def test_a_failed_write_leaves_nothing_and_names_the_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/out'"):
        files.write_atomically(tmp_path / "out", b"new")
    with pytest.raises(OSError, match="No space left"):
        begin(tmp_path / "run")
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError, match=r"nowhere/out'$"):
        files.write_atomically(tmp_path / "nowhere" / "out", b"new")


# --- where a run can be ---------------------------------------------------------------------------


def test_an_empty_directory_is_filled(tmp_path, monkeypatch):
    begin(tmp_path / "whole").fit()
    place = tmp_path / "here"
    place.mkdir(mode=0o700)
    inode = place.stat().st_ino
    monkeypatch.chdir(place)
    begin(".").fit()
    assert (place.stat().st_ino, place.stat().st_mode & 0o777) == (inode, 0o700)
    assert contents(place) == contents(tmp_path / "whole")
    with pytest.raises(FileExistsError, match="is a mount point or the working directory"):
        begin(".", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["here", "whole"]


def test_a_path_whose_bytes_are_no_utf_8(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(folder)
    source = os.path.join(folder, "lines.txt")
    with open(source, "w") as file:
        file.write("\n".join(names()[:100]))
    data = sources.load(source)
    trainer = SETTINGS.trainer(data)
    trainer.save(os.path.join(folder, "run"), source=source)
    trainer.fit()
    resumed = Trainer.resume(os.path.join(folder, "run"))
    assert resumed.data.digest == data.digest
    assert resumed.step == 20


class Dead(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("can_exchange", [True, False])
def test_overwriting_killed_at_any_moment_leaves_a_run(tmp_path, finished, can_exchange):
    trainer = SETTINGS.trainer(DATA)
    trainer.save(tmp_path / "new")
    new = contents(tmp_path / "new")
    for call in range(60):
        folder = tmp_path / str(call)
        folder.mkdir()
        path = lay(folder / "run", finished)
        with pytest.MonkeyPatch.context() as patch:
            if not can_exchange:
                patch.setattr(files, "_exchange", lambda one, other: False)
            steps = iter(range(10**6))

            def dying(function, steps=steps, call=call):
                def wrapper(*arguments, **options):
                    if next(steps) >= call:
                        raise Dead
                    return function(*arguments, **options)

                return wrapper

            for name in ("rename", "unlink", "rmdir", "chmod", "replace"):
                patch.setattr(os, name, dying(getattr(os, name)))
            patch.setattr(files, "_exchange", dying(files._exchange))
            try:
                begin(path, overwrite=True)
                is_over = True
            except Dead:
                is_over = False
        found = contents(RunDirectory.open(path).path)
        assert found in (finished, new)
        with pytest.raises(FileExistsError):
            trainer.save(path)
        assert os.listdir(folder) == ["run"]
        if is_over:
            break
    assert is_over
    assert call > 5


# --- what cannot be saved -------------------------------------------------------------------------


class OwnRate(TrainConfig):
    def learning_rate(self, step):
        return 0.5


def patched():
    config = TrainConfig(**CONFIG)
    object.__setattr__(config, "learning_rate", lambda step: 0.5)
    return config


class OwnData(Dataset):
    pass


class OwnVocabulary(Vocabulary):
    pass


@pytest.mark.parametrize(
    ("config", "data", "message"),
    [
        (OwnRate(**CONFIG), DATA, "fields of a TrainConfig, got OwnRate: .* pass a plain"),
        (patched(), DATA, "got TrainConfig with its own learning_rate"),
        (SETTINGS, DATA, "fields of a TrainConfig, got RunConfig"),
        (TrainConfig(**CONFIG), OwnData(**vars(DATA)), "of a Dataset, got OwnData"),
        (
            TrainConfig(**CONFIG),
            Dataset.from_lines(names()[:100], vocabulary=OwnVocabulary(DATA.vocabulary.tokens)),
            "of a Vocabulary, got OwnVocabulary",
        ),
    ],
)
def test_what_cannot_be_resumed_is_not_saved(tmp_path, config, data, message):
    trainer = Trainer(MLP(MLPConfig(len(DATA.vocabulary), n_embd=2, n_hidden=8)), data, config)
    with pytest.raises(ValueError, match=message):
        trainer.save(tmp_path / "run")
    trainer.fit()
    assert os.listdir(tmp_path) == []


# --- damaged files --------------------------------------------------------------------------------


def state_of(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["pymlp"])


def change(name, function):
    """Replace a tensor of the state; function returns None to leave it out."""

    def damage(tensors, info):
        value = function(tensors.pop(name, None))
        if value is not None:
            tensors[name] = value

    return damage


def poison(value):
    def function(tensor):
        tensor.view(-1)[0] = value
        return tensor

    return function


def note(*path, value):
    def damage(tensors, info):
        for key in path[:-1]:
            info = info[key]
        info[path[-1]] = value

    return damage


MOMENT = "optimizer.hidden.weight.exp_avg"
STATE_DAMAGES = [
    (
        change("batches.position", lambda t: torch.tensor(-5)),
        "position must be from 0 to .* got -5",
    ),
    (change("batches.position", lambda t: torch.tensor(2**40)), "position must be from 0"),
    (change("batches.position", lambda t: t.float()), "position must be int64 of shape"),
    (change("batches.position", lambda t: None), "position is missing"),
    (change("batches.generator", lambda t: t[:-1].clone()), "generator must be uint8 of shape"),
    (change("batches.generator", lambda t: torch.full_like(t, 255)), "not the state of a"),
    (change(MOMENT, lambda t: None), f"{MOMENT} is missing, float32 of shape"),
    (change(MOMENT, lambda t: t.double()), f"{MOMENT} must be float32 .* got float64"),
    (change(MOMENT, lambda t: t.T.contiguous()), f"{MOMENT} must be float32 of shape"),
    (change(MOMENT, poison(float("nan"))), f"{MOMENT} must not hold nan"),
    (change(MOMENT + "_sq", poison(-1.0)), f"{MOMENT}_sq must not be negative"),
    (change("optimizer.output.bias.step", lambda t: t + 1), "output.bias.step must be 20"),
    (change("optimizer.extra.step", lambda t: torch.ones(())), "extra.step, .* does not belong"),
    (change("model.output.bias", poison(float("inf"))), "model.output.bias must be finite"),
    (change("model.output.bias", lambda t: t.long()), "model.output.bias must be float32"),
    (change("model.embedding.weight", lambda t: t.long()), "model.embedding.weight must be float"),
    (change("model.embedding.weight", lambda t: None), "model.embedding.weight is missing"),
    (change("average.output.bias", lambda t: None), "average.output.bias is missing"),
    (change("best.output.bias", lambda t: t[1:].clone()), "best.output.bias must be float32"),
    (change("other", lambda t: torch.ones(1)), "other, float32 .* does not belong"),
    (note("steps", value=-1), "steps and metrics_bytes must be counts"),
    (note("steps", value=10**17), r"losses.f64 is damaged: the checkpoint needs 8\d+ bytes"),
    (note("steps", value="20"), "steps and metrics_bytes must be counts"),
    (note("metrics_bytes", value=10**15), "metrics.jsonl is damaged: the checkpoint needs"),
    (note("metrics_bytes", value=7), "metrics.jsonl: line 1"),
    (note("metrics_bytes", value=0), "best must be an evaluation"),
    (note("info", value=[]), "steps and metrics_bytes must be counts|metadata"),
    (note("info", "best", value=[3, 1.0, 1.0]), "best must be an evaluation"),
    (note("info", "best", value="x"), "best must be an evaluation"),
    (note("info", "frozen", value=["other"]), "frozen must be a list of parameters"),
    (note("info", "frozen", value=[[]]), "frozen must be a list of parameters"),
    (note("info", "frozen", value=["output.bias"]), "optimizer.output.bias.exp_avg, .* not belong"),
    (note("format", value=7), "has format 7, this pymlp reads format 1"),
]


@pytest.mark.parametrize(("damage", "message"), STATE_DAMAGES)
def test_a_damaged_state_is_refused_in_one_line(tmp_path, finished, damage, message):
    path = lay(tmp_path / "run", finished)
    tensors, info = state_of(path / "state.safetensors")
    damage(tensors, info)
    save_file(tensors, path / "state.safetensors", {"pymlp": json.dumps(info)})
    before = contents(path)
    with pytest.raises(ValueError, match=message) as caught:
        Trainer.resume(path, DATA)
    assert one_line(caught.value)
    assert str(path) in str(caught.value)
    assert contents(path) == before


NESTED = "[" * 100_000
FILE_DAMAGES = [
    ("vocab.json", NESTED),
    ("vocab.json", '{"tokens": [".", "a"]}'),
    ("vocab.json", '{"tokens": [".", 1]}'),
    ("config.toml", f"a = {NESTED}"),
    ("config.toml", "data = 3"),
    ("metrics.jsonl", NESTED),
    ("metrics.jsonl", "[]\n"),
    ("metrics.jsonl", '{"step": 99999, "loss": 1.0}\n'),
    ("metrics.jsonl", '{"step": "4", "loss": 1.0}\n'),
    ("metrics.jsonl", '{"step": 4, "dev_loss": "low"}\n'),
    ("metrics.jsonl", '{"step": 4, "dev_loss": NaN}\n'),
]


@pytest.mark.parametrize(("name", "content"), FILE_DAMAGES)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, finished, name, content):
    size = len(finished["metrics.jsonl"])
    content = content.encode().ljust(size, b"\n") if name == "metrics.jsonl" else content.encode()
    path = lay(tmp_path / "run", finished | {name: content})
    read = RunDirectory.vocabulary if name == "vocab.json" else RunDirectory.checkpoint
    with pytest.raises(ValueError, match=re.escape(str(path / name))) as caught:
        read(RunDirectory.open(path))
    assert one_line(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lr = " + "9" * 400, "lr must be|too large"),
        ("batch_size = true", "batch_size must be an int"),
        ("betas = 3", "betas must be two numbers, got 3"),
        ("other = 3", "other"),
    ],
)
def test_a_setting_that_is_none_is_refused(tmp_path, finished, line, message):
    path = lay(tmp_path / "run", finished)
    key = line.partition(" ")[0]
    text = re.sub(rf"(?ms)^{key} = (\[.*?^\]|[^\n]*)\n", "", finished["config.toml"].decode())
    (path / "config.toml").write_text(text.replace("[train]", f"[train]\n{line}"))
    with pytest.raises(ValueError, match=rf"config.toml: .*({message})") as caught:
        Trainer.resume(path, DATA)
    assert one_line(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_is_not_finite_is_not_loaded(tmp_path, finished, value):
    path = lay(tmp_path / "run", finished)
    tensors = load_file(path / "model.safetensors")
    tensors["hidden.bias"][0] = value
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(ValueError, match=r"hidden.bias must be finite"):
        RunDirectory.open(path).model()


def test_loaded_models_do_not_change_with_their_file(tmp_path, finished):
    path = lay(tmp_path / "run", finished)
    model = RunDirectory.open(path).model()
    trainer = Trainer.resume(path, DATA, steps=30)
    before = [p.clone() for p in model.parameters()]
    for name in ("model.safetensors", "state.safetensors"):
        with open(path / name, "r+b") as file:
            file.write(b"\xff" * 64)
            file.truncate(64)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    trainer.fit()
    assert Trainer.resume(path, DATA).step == 30


def test_a_run_that_was_made_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    """Between the look at the place and the rename another process makes its run there."""
    stage, rivals = rundir._stage, []

    def late(path):
        staged = stage(path)
        monkeypatch.setattr(rundir, "_stage", stage)
        rivals.append(begin(path))
        return staged

    monkeypatch.setattr(rundir, "_stage", late)
    with pytest.raises(FileExistsError, match="already holds a run"):
        begin(tmp_path / "run")
    (rival,) = rivals
    rival.fit()
    assert len(RunDirectory.open(tmp_path / "run").checkpoint().losses) == rival.step == 20
    assert os.listdir(tmp_path) == ["run"]
