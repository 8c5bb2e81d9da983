"""The command line: output, exit codes, messages."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pymlp.benchmarks.__main__ as benchmarks
import pytest
import torch
from click.testing import CliRunner

from pymlp._library import CUDA_ARCHITECTURES
from pymlp.cli import main
from pymlp.config import ENGINES, TrainConfig
from pymlp.data import Dataset, names
from pymlp.model import MLPConfig
from pymlp.rundir import RunDirectory
from pymlp.trainer import Trainer

QUICK = ["--steps", "30", "--batch-size", "8", "--n-hidden", "8", "--eval-every", "20"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, set_num_threads):
    """Each test in a directory of its own, on one thread: what is computed here is tiny."""
    monkeypatch.chdir(tmp_path)
    set_num_threads(1)
    (tmp_path / "lines.txt").write_text("\n".join(names()[:200]) + "\n\n")


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def train(*arguments, code=0):
    return run("train", "--data", "lines.txt", *quick(*arguments), code=code)


def quick(*arguments):
    """The options of `QUICK` that are not among the arguments, and those."""
    pairs = zip(QUICK[::2], QUICK[1::2], strict=True)
    return [x for pair in pairs if pair[0] not in arguments for x in pair] + [*arguments]


def only_json(result):
    """The one line on stdout."""
    (line,) = result.stdout.splitlines()
    return json.loads(line)


# --- train ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_train_json(engine):
    result = only_json(train("--json", "--engine", engine, "--seed", 5, "--out", "a/run"))
    data = Dataset.from_lines(names()[:200])
    n_chars = len(data.vocabulary)
    assert {name: result[name] for name in ("steps", "batch_size", "engine", "seed", "out")} == {
        "steps": 30,
        "batch_size": 8,
        "engine": "native" if engine == "auto" else engine,
        "seed": 5,
        "out": "a/run",
    }
    assert result["examples"] == {s: len(getattr(data, s)) for s in ("train", "dev", "test")}
    assert result["n_params"] == MLPConfig(n_chars, n_embd=10, n_hidden=8).n_params
    history = Trainer.resume("a/run").history
    assert (result["train_loss"], result["dev_loss"]) == history.evals[-1][1:]
    assert (result["best_step"], result["best_dev_loss"]) == (history.best.step, history.best.dev)
    assert result["us_per_step"] == pytest.approx(1e6 * result["seconds"] / 30)


def test_train_prints_losses_and_names_and_leaves_pictures():
    pytest.importorskip("matplotlib")
    result = train()
    lines = result.stdout.splitlines()
    assert re.fullmatch(
        r"train loss \d\.\d{4}, dev loss \d\.\d{4} nats per token after 30 steps", lines[0]
    )
    samples = [line.split() for line in lines[2:22]]
    assert {sample[-1] for sample in samples} <= {"train", "dev", "test", "new"}
    assert lines[22:] == ["runs/lecture: model.safetensors, loss.png, embedding.png"]
    assert os.path.getsize("runs/lecture/loss.png") > 1000
    assert os.path.getsize("runs/lecture/embedding.png") > 1000
    assert "1 empty lines skipped" in result.stderr
    assert "step       20  train loss" in result.stderr
    assert not set(lines) & set(result.stderr.splitlines())  # which may go to the same file


def test_train_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = train()
    assert "pip install pymlp[plot]" in result.stderr
    assert result.stdout.splitlines()[-1] == "runs/lecture: model.safetensors"


def test_defaults_are_the_lecture_on_bundled_names():
    result = only_json(run("train", "--steps", 1, "--json"))
    config = RunDirectory.open("runs/lecture").config()
    assert result["examples"]["train"] == len(Dataset.from_lines(names()).train)
    assert config["data"]["source"] == "bundled names"
    expected = {"lr": 0.1, "schedule": "step", "lr_drop_factor": 0.1, "batch_size": 32}
    assert {name: config["train"][name] for name in expected} == expected
    assert config["model"] | {"vocab_size": 0} == {
        "vocab_size": 0,
        "block_size": 3,
        "n_embd": 10,
        "n_hidden": 200,
        "direct": False,
    }


def test_options_reach_the_configuration():
    options = "--lr 0.5 --optimizer adamw --weight-decay 0.2 --schedule cosine --warmup-steps 3"
    flags = ["--log-grad-norm", "--log-every", 5, "--block-size", 4]
    train("--preset", "lecture-2d", *options.split(), *flags)
    run_directory = RunDirectory.open("runs/lecture-2d")
    expected = TrainConfig(
        steps=30,
        batch_size=8,
        lr=0.5,
        optimizer="adamw",
        weight_decay=0.2,
        schedule="cosine",
        warmup_steps=3,
        log_grad_norm=True,
        eval_every=20,
        log_every=5,
    )
    assert run_directory.train_config() == expected
    model = run_directory.model_config()
    assert (model.block_size, model.n_embd, model.n_hidden) == (4, 2, 8)


def test_engines_agree_in_float64():
    for engine in ENGINES:
        train("--engine", engine, "--dtype", "float64", "--out", engine)
    losses = [Trainer.resume(engine).history.losses for engine in ENGINES]
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], rtol=1e-9, atol=0)
    assert RunDirectory.open(ENGINES[0]).model().output.bias.dtype == torch.float64


def test_same_seed_same_model():
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        train("--seed", seed, "--out", out)
    a, b, c = (Path(out, "model.safetensors").read_bytes() for out in "abc")
    assert a == b != c


def test_names_of_runs():
    for _ in range(3):
        train()
    assert sorted(os.listdir("runs")) == ["lecture", "lecture-2", "lecture-3"]
    result = only_json(run("train", "--resume", "--steps", 40, "--json"))
    assert (result["out"], result["steps"]) == ("runs/lecture-3", 40)


def test_profile():
    result = train("--profile", "--json", "--out", "mine", "--max-grad-norm", 1)
    (line,) = result.stdout.splitlines()
    times = json.loads(line)["profile"]
    assert {"batch", "forward", "backward", "norm", "update", "other"} <= set(times)
    assert sum(times.values()) == pytest.approx(json.loads(line)["us_per_step"])
    rows = [line.split() for line in result.stderr.splitlines() if "%" in line]
    assert [row[1] for row in rows] == list(times) == sorted(times, key=lambda name: -times[name])
    assert sum(float(row[5].rstrip("%")) for row in rows) == pytest.approx(100, abs=1)
    assert only_json(run("train", "--resume", "--out", "mine", "--profile", "--json")) == {
        **json.loads(line), "seconds": 0.0, "us_per_step": None, "profile": {}
    }  # fmt: skip


def test_profile_is_for_the_native_engine():
    message = train("--profile", "--engine", "reference", code=2).stderr
    assert "--profile is for --engine native on the CPU, this run has engine reference" in message
    assert not os.path.exists("runs")


def test_resume_of_a_finished_run_reports_it():
    first = only_json(train("--json"))
    again = only_json(run("train", "--resume", "--json"))
    assert again == first | {"seconds": 0.0, "us_per_step": None}


def test_a_run_is_overwritten_only_when_told():
    train("--out", "mine")
    message = train("--out", "mine", code=1).stderr
    assert "mine already holds a run" in message
    assert "(--resume, --overwrite, --out)" in message
    train("--out", "mine", "--overwrite", "--seed", 3)
    assert RunDirectory.open("mine").train_config().seed == 3


def test_resume_changes_nothing_but_the_end():
    train("--out", "mine")
    message = run("train", "--resume", "--out", "mine", "--lr", 1, code=2).stderr
    assert "--lr cannot be changed by --resume" in message
    assert "no run in other" in run("train", "--resume", "--out", "other", code=1).stderr


def test_divergence():
    message = train("--lr", "1e30", code=1).stderr
    assert "training diverged" in message
    assert "learning rate 1e+30: try a lower one" in message
    assert "The last good checkpoint is in runs/lecture." in message
    assert Trainer.resume("runs/lecture").step == 0


def test_threads():
    train("--threads", 2)
    assert torch.get_num_threads() == 2


def test_ctrl_c_saves_and_resume_ends_with_the_same_bits():
    options = quick("--steps", "4000", "--eval-every", "0", "--threads", "1")
    options += ["--data", "lines.txt", "--engine", "reference"]
    command = [sys.executable, "-m", "pymlp", "train", *options, "--out", "stopped"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not os.path.exists("stopped/metrics.jsonl"):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGINT
    assert "Go on with: pymlp train --resume --out stopped" in message
    assert Trainer.resume("stopped").step < 4000
    run("train", "--resume", "--out", "stopped", "--json")
    run("train", *options, "--out", "whole", "--json")
    for name in ("model.safetensors", "state.safetensors", "metrics.jsonl", "losses.f64"):
        assert Path("stopped", name).read_bytes() == Path("whole", name).read_bytes()


# --- the other commands ---------------------------------------------------------------------------


@pytest.fixture
def trained():
    train("--out", "mine", "--json")
    return Trainer.resume("mine")


def test_eval(trained):
    result = only_json(run("eval", "mine", "--split", "test", "--json"))
    assert result["loss"] == trained.evaluate("test")
    assert result["perplexity"] == pytest.approx(2 ** result["bits"])
    assert result["examples"] == len(trained.data.test)
    text = run("eval", "mine").stdout
    assert text.startswith(f"dev loss {trained.evaluate('dev'):.4f} nats per token over ")


def test_eval_of_the_best():
    train("--lr", 5, "--out", "mine", "--json", "--eval-every", 1)
    best = Trainer.resume("mine").history.best
    assert best.step < 30
    assert only_json(run("eval", "mine", "--best", "--json"))["loss"] == best.dev


def test_sample(trained):
    options = ["-n", 7, "--temperature", 0.7, "--top-k", 5, "--prefix", "an", "--seed", 3]
    samples = only_json(run("sample", "mine", *options, "--json"))["samples"]
    assert [sample["text"][:2] for sample in samples] == ["an"] * 7
    assert {sample["in"] for sample in samples} <= {"train", "dev", "test", "new"}
    text = run("sample", "mine", *options).stdout
    assert [line.split() for line in text.splitlines()] == [[s["text"], s["in"]] for s in samples]


def test_sample_says_where_a_name_stands(trained):
    known = trained.data.lines.test[0]
    options = ["--prefix", known, "--max-length", len(known), "-n", 1, "--json"]
    (sample,) = only_json(run("sample", "mine", *options))["samples"]
    assert sample == {"text": known, "in": "test"}


def test_sample_without_the_data(trained):
    os.remove("lines.txt")
    result = run("sample", "mine", "-n", 2, "--json")
    assert [sample["in"] for sample in only_json(result)["samples"]] == [None, None]
    assert "lines.txt" in result.stderr
    assert "lines.txt" in run("eval", "mine", code=1).stderr


def test_plot(trained):
    pytest.importorskip("matplotlib")
    paths = only_json(run("plot", "mine", "--out", "pictures", "--json"))
    assert paths == {"loss": "pictures/loss.png", "embedding": "pictures/embedding.png"}
    assert all(os.path.exists(path) for path in paths.values())


def test_info():
    facts = only_json(run("info", "--json"))
    assert facts["torch"] == torch.__version__
    assert facts["isa_active"] in facts["isa_available"]
    assert re.search(r"(GCC|[Cc]lang) \d+\.\d+", facts["compiler"])
    assert facts["cuda_kernels"] == (list(CUDA_ARCHITECTURES) or None)
    assert facts["bundled_names"] == len(names())
    assert f"{facts['bundled_names']:,}" in run("info").stdout


def test_info_on_data():
    with open("lines.txt", "w") as file:
        file.write("anna\nbob\n\n" * 10)
    report = only_json(run("info", "--data", "lines.txt", "--json"))
    counts = [report[name] for name in ("lines", "unique", "repeated", "empty_lines_skipped")]
    assert counts == [20, 2, 18, 10]
    assert (report["test_in_train"]["lines"], report["test_in_train"]["n_lines"]) == (2, 2)
    assert "2 of 2 lines (100.0%)" in run("info", "--data", "lines.txt").stdout
    assert only_json(run("info", "--data", "--json"))["lines"] == len(names())
    words = only_json(run("info", "--data", "lines.txt", "--tokens", "word", "--json"))
    assert (words["vocab_size"], words["train_examples"]) == (3, 32)


def test_bench_json():
    command = [sys.executable, "-m", "pymlp", "bench", "ops", "--quick", "--json"]
    options = ["--batch-sizes", "8", "--repeats", "1", "--modes", "forward"]
    result = subprocess.run([*command, *options], capture_output=True, text=True)
    report = only_json(result)
    assert (result.returncode, report["failures"]) == (0, [])
    assert {row["batch_size"] for row in report["rows"]} == {8}
    assert report["machine"]["torch"] == torch.__version__


def test_bench_passes_everything_on(monkeypatch):
    seen = []
    monkeypatch.setattr(benchmarks, "main", lambda arguments: seen.append(arguments) or 1)
    run("bench", "step", "--quick", "--help", "--batch-sizes", 32, code=1)
    assert seen == [["step", "--quick", "--help", "--batch-sizes", "32"]]


# --- wrong usage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tran"], 2, "Did you mean 'train'?"),
        (["train", "--batchsize", "3"], 2, "--batch-size"),
        (["train", "--steps", "0"], 2, "'--steps': 0 is not in the range x>=1"),
        (["train", "--steps", str(2**64)], 2, "steps must be at most"),
        (["train", "--n-hidden", str(2**64)], 2, "--n-hidden must be at most 281474976710656"),
        (["train", "--steps", str(2**47)], 1, "not enough memory: "),
        (["train", "--lr", "1e39"], 2, "lr must be finite and above 0 and at most 1e+38"),
        (["train", "--threads", "100000"], 2, "100000 is not in the range 1<=x<=1024"),
        (["train", "--lr", "0"], 2, "'--lr': 0.0 is not in the range x>0"),
        (["train", "--engine", "jit"], 2, "not one of 'auto', 'native', 'autograd', 'reference'"),
        (["train", "--preset", "best"], 2, "not one of 'lecture-2d', 'lecture'"),
        (["train", "--lr-min", "1"], 2, "--lr-min must be finite and at least 0 and at most 0.1"),
        (["train", "--data", "nothing.txt"], 2, "'nothing.txt' does not exist"),
        (["train", "--device", "gpu"], 2, "'gpu' is not cpu, cuda or cuda:N"),
        (["train", "--device", "cuda:99"], 1, "sees"),
        (["train", "--data", "latin1.txt"], 1, "latin1.txt: not UTF-8 text: line 2"),
        (["train", "--data", "few.txt"], 1, "train and dev must not be empty"),
        (["train", "--out", "full"], 1, "full exists and is not a run directory"),
        (["eval", "nowhere"], 2, "no run in nowhere"),
        (["sample", "mine", "--prefix", "Ä"], 1, "character 'Ä' (U+00C4) is not in the vocabulary"),
        (["sample", "mine", "--temperature", "-1"], 2, "-1.0 is not in the range x>=0"),
        (
            ["sample", "mine", "--temperature", "nan"],
            1,
            "temperature must be finite and at least 0, got nan",
        ),
        (["sample", "mine", "--seed", str(2**64)], 2, "'--seed': 18446744073709551616 is not"),
        (["plot", "mine", "--window", "0"], 2, "0 is not in the range 1<="),
        (["info", "--tokens", "word"], 2, "--tokens says how a file is read: give --data"),
        (["info", "--data", "nothing.txt"], 2, "'--data': File 'nothing.txt' does not exist"),
        (["info", "--data", "latin1.txt"], 1, "latin1.txt: not UTF-8 text: line 2"),
    ],
)
def test_errors(arguments, code, message):
    with open("latin1.txt", "wb") as file:
        file.write("ok\nJosé\n".encode("latin1"))
    with open("few.txt", "w") as file:
        file.write("a\nb\n")
    os.makedirs("full/of/other/things")
    if "mine" in arguments:
        train("--out", "mine", "--json")
    result = run(*arguments, code=code)
    assert message in result.stderr
    assert "Error: " in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", main.commands)
def test_help(command):
    text = run(command, "--help").stdout
    assert f"Example: pymlp {command}" in text
    assert "--json" in text


def test_training_options_reach_the_run():
    options = {
        "--label-smoothing": 0.1,
        "--z-loss": 0.01,
        "--dropout": 0.2,
        "--schedule": "inverse",
        "--lr-decay": 0.5,
        "--patience": 2,
        "--average": 5,
    }
    first = ["--init", "unigram"]
    flags = [str(part) for option in options.items() for part in option]
    switches = ("--direct", "--no-decay-biases", "--sparse-embedding")
    result = train(*switches, *first, *flags, "--n-hidden", 0, "--json")
    assert only_json(result)["engine"] == "native"
    config = RunDirectory.open("runs/lecture").config()
    assert config["model"]["direct"] is True
    assert config["model"]["n_hidden"] == 0
    assert config["train"]["decay_biases"] is False
    assert config["train"]["sparse_embedding"] is True
    written = {flag: config["train"][flag[2:].replace("-", "_")] for flag in options}
    assert written == options
    for command in (("eval", "runs/lecture"), ("sample", "runs/lecture", "-n", 3)):
        run(*command)
    run("score", "runs/lecture", "lines.txt", "--best")


def test_patience_is_told():
    flags = ("--lr", 30, "--patience", 1, "--eval-every", 2, "--steps", 500)
    result = train(*flags, "--json")
    message = (
        r"Stopped early at step (\d+): 1 evaluations found no lower dev loss than that of step"
    )
    step = int(re.search(message, result.stderr)[1])
    assert only_json(result)["step"] == step < 500


def test_help_has_the_defaults_of_the_presets():
    shown = "".join(run("train", "--help").stdout.split())  # lines may end within a name
    rates = "0.1 for lecture-2d and lecture, 0.256 for bengio, 0.002 for word-best"
    units = "100 for lecture-2d and bengio, 200 for lecture, 256 for word-best"
    for text in (
        f"may be 0 with --direct. [default: {units}]",
        f"Learning rate. [default: {rates}]",
        "For --optimizer momentum. [default: 0.9]",
    ):
        assert "".join(text.split()) in shown


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["info"], ["info", "--json"]])
def test_a_full_disk_is_reported(arguments):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "pymlp", *arguments]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (
        1,
        "Error: standard output: No space left on device\n",
    )


def test_python_m_pymlp():
    command = [sys.executable, "-m", "pymlp", "eval", "nowhere"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: pymlp eval")


# --- what nobody expected -------------------------------------------------------------------------


def _raise(error):
    raise error


@pytest.mark.parametrize(
    "error",
    [KeyError("format"), RecursionError("deep"), OverflowError("int"), RuntimeError("a\nb")],
)
def test_an_unexpected_error_is_called_a_bug(error, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(main.commands["info"], "callback", lambda **_: _raise(error))
    (line,) = run("info", code=1).stderr.splitlines()
    told = "Error: this is a bug of pymlp .*: please report it with the output of `pymlp info` and "
    path = re.fullmatch(told + "the traceback in (.+)", line)[1]
    assert type(error).__name__ in Path(path).read_text().splitlines()[-len(str(error).split())]
    monkeypatch.setenv("PYMLP_TRACEBACK", "1")
    first, *_, last = run("info", code=1).stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert re.fullmatch(told + "the traceback above", last)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Trainer: engine='native' does not apply", "--engine native does not apply"),
        ("TrainConfig: eval_every must be", "--eval-every must be"),
        ("sample: prefix has 3 tokens, more than max_length=2", "--max-length 2"),
        ("runs/a/config.toml: TrainConfig: lr must be", "runs/a/config.toml: lr must be"),
        ("Trainer: steps: not that", "--steps: not that"),
    ],
)
def test_messages_are_in_the_words_of_the_command_line(message, expected, trained, monkeypatch):
    command = "sample" if message.startswith("sample") else "train"
    error = ValueError(message)
    monkeypatch.setattr(main.commands[command], "callback", lambda *_, **__: _raise(error))
    arguments = ["mine"] if command == "sample" else []
    assert expected in run(command, *arguments, code=1).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "mine", "-n", str(10**20)],
        ["sample", "mine", "--top-k", str(10**20)],
        ["sample", "mine", "--max-length", str(2**31)],
        ["nearest", "mine", "a", "-k", str(10**20)],
        ["plot", "mine", "--labels", str(10**20)],
        ["plot", "mine", "--window", str(10**20)],
    ],
)
def test_counts_have_bounds(arguments, trained):
    assert "is not in the range" in run(*arguments, code=2).stderr


def test_lines_that_no_memory_holds(trained):
    (line,) = run("sample", "mine", "-n", 2**31 - 1, code=1).stderr.splitlines()
    assert line.startswith("Error: not enough memory: 2,147,483,647 lines need 400 GiB or more")


# --- streams --------------------------------------------------------------------------------------


def program(shell, *arguments, **environment):
    """The program in a process of its own, where a shell sets up its streams."""
    command = ["bash", "-c", f'exec "$0" -m pymlp "$@" {shell}', sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, env=os.environ | environment)


def test_closed_standard_input(trained):
    result = program("<&-", "score", "mine")
    message = b"Error: standard input is closed: name a file, or send lines by a pipe\n"
    assert (result.returncode, result.stderr) == (1, message)


@pytest.mark.parametrize(
    ("encoding", "folder"), [("latin-1", "łódź"), ("ascii", "łódź"), ("utf-8", "ż\udcff")]
)
def test_characters_that_the_output_cannot_have_are_escaped(encoding, folder):
    os.mkdir(folder)
    data, out = f"{folder}/names.txt", f"{folder}/run"
    Path(data).write_text("łucja\nżaneta\n" * 10)
    for arguments in (
        ["train", *QUICK, "--data", data, "--out", out],
        ["eval", out],
        ["sample", out, "--temperature", "3"],
        ["score", out, data],
        ["nearest", out, "ł", "ł"],
        ["plot", out],
        ["info", "--data", data],
        ["info", "--data", data, "--json"],
    ):
        result = CliRunner(charset=encoding).invoke(main, arguments)
        assert (result.exit_code, "Error" in result.stderr) == (0, False), result.stderr
        if encoding != "utf-8" and arguments[0] not in ("eval", "plot"):
            assert re.search(rb"\\u01(42|7c)", result.stdout_bytes), arguments
    wrong = CliRunner(charset=encoding).invoke(main, ["sample", out, "--prefix", "日"])
    escaped = "日".encode(encoding, "backslashreplace")
    assert b"Error: sample: --prefix '%s'" % escaped in wrong.stderr_bytes


def test_messages_leave_paths_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train("--out", "lr=0.1")
    for out in ("lr=0.1", f"{tmp_path}/lr=0.1"):
        result = run("train", "--resume", "--out", out, "--steps", "5", code=1)
        assert f"{out} has done" in result.stderr
    (tmp_path / "lr=0.1" / "config.toml").write_text("[data]\n[model]\n[train]\nsteps = 1\n")
    assert "lr=0.1/config.toml: " in run("eval", "lr=0.1", code=1).stderr


def test_train_with_stderr_closed():
    program = [sys.executable, "-m", "pymlp", "train", "--data", "lines.txt", *QUICK]
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *program], capture_output=True, text=True)
    assert done.returncode == 0
    assert "after 30 steps" in done.stdout
    # A message that nobody can read changes no exit code.
    failed = ["sh", "-c", '"$@" 2>&-', "sh", *program, "--out", "runs/lecture"]
    done = subprocess.run(failed, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_errors_name_the_path_that_was_typed_as_a_user():
    Path("ro").mkdir(mode=0o555)
    _check_names_of_unwritable()


def test_errors_name_the_path_that_was_typed(monkeypatch):
    Path("ro").mkdir()

    def refuse(real):
        def call(path, *arguments, **options):
            if "/ro/" in f"{os.path.abspath(path)}/":
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return real(path, *arguments, **options)

        return call

    for name in ("open", "mkdir"):
        monkeypatch.setattr(os, name, refuse(getattr(os, name)))
    _check_names_of_unwritable()


def _check_names_of_unwritable():
    message = run("prepare", "lines.txt", "--out", "ro/x.tokens", code=1).stderr
    assert message == "Error: ro/x.tokens: Permission denied\n"
    message = train("--out", "ro/new", code=1).stderr
    assert message.splitlines()[-1] == "Error: ro/new: Permission denied"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--steps", 1, "--steps", 2],
        ["train", "--seed", 1, "--seed", 2],
        ["train", "--betas", 0.5, 0.5, "--betas", 0.9, 0.9],
        ["train", "--preset", "lecture", "--preset", "word-best"],
        ["train", "--out", "a", "--out", "b"],
        ["train", "--init-from", "mine", "--init-from", "mine"],
        ["eval", "mine", "--split", "dev", "--split", "test"],
        ["sample", "mine", "--seed", 1, "--seed", 2],
        ["prepare", "lines.txt", "--out", "a", "--out", "b"],
        ["plot", "mine", "--out", "a", "--out", "b"],
    ],
)
def test_options_given_twice_are_wrong_usage(trained, arguments):
    flag = next(x for x in arguments if str(x).startswith("--"))
    assert f"{flag} is given 2 times: " in run(*arguments, code=2).stderr
