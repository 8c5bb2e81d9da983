"""The harness against a scripted clock, its checks, its files, and the suites themselves."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pymlp.benchmarks import (
    dev_loss,
    many,
    memory,
    ops,
    providers,
    report,
    results,
    run,
    words,
)
from pymlp.benchmarks.__main__ import QUICK_PROVIDERS, main
from pymlp.benchmarks.harness import Case, CheckFailed, Suite, Task, check, measure
from pymlp.benchmarks.loops import Sizes
from pymlp.benchmarks.machine import Machine
from torch.nn import functional as F

MACHINE = Machine(
    cpu="Example CPU", cores=4, threads=2, isa="avx2", torch_isa="AVX2", load=0.1, os="Linux",
    python="3.12.1", torch="2.13.0", jax=None, pymlp="0.1.0", commit="0123456789abcdef",
    date="2026-01-02T03:04:05+00:00",
)  # fmt: skip
EAGER = results.Result(
    suite="step", op="sgd", mode="step", provider="eager", batch_size=32, shape="V=27",
    median_us=600.0, q20_us=590.0, q80_us=700.0, min_us=580.0, repeats=21, calls=30,
    speedup=1.0, peak_bytes=3 * 2**20, max_error=1e-7, others=0.0,
)  # fmt: skip
PYMLP = replace(EAGER, provider="pymlp", median_us=48.0, speedup=12.5, peak_bytes=2**20)
REPORT = results.Report(MACHINE, [EAGER, PYMLP], [])


class Scripted:
    """A task whose calls take the given seconds on a clock that nothing else moves."""

    now = 0.0

    def task(self, name: str, seconds: list[float], order: list[str], steps: int = 1) -> Task:
        script = iter(seconds)

        def call() -> None:
            order.append(name)
            self.now += next(script)

        return Task(call, lambda: ({}, {}), steps)


def test_measure_takes_turns_and_quantiles_of_timed_calls_only() -> None:
    clock, order = Scripted(), []
    # Warm-up, calibration, then an untimed call (9 s) before each of the five timed ones.
    tasks = {
        "a": clock.task("a", [9, 1, 9, 1, 9, 5, 9, 2, 9, 4, 9, 3], order, steps=2),
        "b": clock.task("b", [9, 1, *[9, 7] * 5], order),
    }
    timings = measure(tasks, repeats=5, sample_seconds=1.0, clock=lambda: clock.now)
    a = timings["a"]
    got = [a.median_us, a.q20_us, a.q80_us, a.min_us]
    assert got == pytest.approx([1.5e6, 0.9e6, 2.1e6, 0.5e6])
    assert (a.repeats, a.calls) == (5, 1)
    assert timings["b"].median_us == 7e6
    assert "".join(order[4:]) == "aabb" + "bbaa" + "aabb" + "bbaa" + "aabb"


def test_measure_fills_a_sample_with_calls() -> None:
    clock = Scripted()
    tasks = {"a": clock.task("a", [0.001] * 200, [])}
    timing = measure(tasks, repeats=3, sample_seconds=0.02, clock=lambda: clock.now)["a"]
    assert timing.calls == 20
    assert timing.median_us == pytest.approx(1000)


@pytest.mark.parametrize("mode", ops.MODES)
def test_check_sees_wrong_gradients(mode: str) -> None:
    case = Case("ops", "cross_entropy", mode, 5, "")

    def wrong(input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(input, target)
        return loss.detach() + 0.9 * (loss - loss.detach())

    check(ops.torch_task(case, F.cross_entropy), ops.SUITE.tolerance)
    task = ops.torch_task(case, wrong)
    if mode == "forward":
        check(task, ops.SUITE.tolerance)
    else:
        with pytest.raises(CheckFailed, match="gradient of input has error"):
            check(task, ops.SUITE.tolerance)


def test_wrong_provider_is_not_timed_and_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = torch.ones(2)

    def builders(case: Case) -> dict[str, object]:
        return {
            "eager": lambda case: Task(right.clone, lambda: ({"y": right}, {"y": right})),
            "pymlp": lambda case: Task(right.clone, lambda: ({"y": 2 * right}, {"y": right})),
        }

    case = Case("fake", "op", "full", 1, "")
    monkeypatch.setattr(run, "SUITES", {"fake": Suite("fake", lambda *_: [case], builders, 1e-6)})
    out = tmp_path / "new" / "out.json"
    assert main(["fake", "--quick", "--repeats", "1", "--out", str(out)]) == 1
    written = results.load(out)
    assert [row.provider for row in written.rows] == ["eager"]
    assert written.failures == [
        "fake op full 1 () pymlp: CheckFailed: y has error 1.0e+00, at most 1e-06 passes"
    ]
    assert report.main([str(out)]) == 1
    assert "a run with failures is not published" in capsys.readouterr().err


def test_what_ends_a_run_leaves_the_results_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = torch.ones(2)

    def build(case: Case) -> Task:
        if case.batch_size == 2:
            raise KeyboardInterrupt
        return Task(right.clone, lambda: ({"y": right}, {"y": right}))

    cases = [Case("fake", "op", "full", batch_size, "") for batch_size in (1, 2)]
    suite = Suite("fake", lambda *_: cases, lambda _: {"eager": build}, 1e-6)
    monkeypatch.setattr(run, "SUITES", {"fake": suite})
    out = tmp_path / "out.json"
    with pytest.raises(KeyboardInterrupt):
        main(["fake", "--quick", "--repeats", "1", "--out", str(out)])
    assert [row.batch_size for row in results.load(out).rows] == [1]


def test_suites_run(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--batch-sizes", "8", "--repeats", "1"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    for suite in run.SUITES.values():
        if suite.name in ("words", "dev-loss", "many"):  # these take long, see below
            continue
        for case in suite.cases([8], list(run.MODES)):
            assert f"{case.suite} {case.op} {case.mode}" in table


def test_what_measures_a_gpu_runs_on_the_cpu_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(words, "N", 16)
    monkeypatch.setattr(words, "MODELS", (Sizes(T=2, E=3, H=5, V=40),))
    monkeypatch.setattr(words, "MODEL_BATCH_SIZES", (8,))
    monkeypatch.setattr(
        words, "SHAPES", {"cross_entropy": "V=40", "linear_cross_entropy": "H=3 V=40"}
    )
    graphs = ("reduce-overhead", "captured")
    there = dict.fromkeys(graphs, lambda: None)
    monkeypatch.setattr(providers, "_MISSING", providers._MISSING | there)
    names = ["eager", *graphs, "chunked", "pymlp", "native", "copy"]
    arguments = ["--quick", "--batch-sizes", "8", "--repeats", "1", "--modes", "full", "--json"]
    assert main(["words", "step", *arguments, "--providers", *names]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["provider"] for row in rows} == set(names)
    moved = {row["provider"]: row["bytes"] for row in rows if row["op"] == "cross_entropy"}
    assert moved == {"copy": 2 * 16 * 40 * 4} | dict.fromkeys(
        ("eager", "reduce-overhead", "pymlp"), 3 * 16 * 40 * 4
    )


def test_a_gpu_that_is_not_there_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for device, message in (("cuda:99", "CUDA devices"), ("tpu", "must be cpu, cuda or cuda:N")):
        with pytest.raises(SystemExit):
            main(["--device", device])
        assert message in capsys.readouterr().err


def test_training_until_a_dev_loss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dev_loss, "TARGETS", (2.80, 0.10))
    monkeypatch.setattr(dev_loss, "STEPS", 400)
    monkeypatch.setattr(dev_loss, "EVAL_EVERY", 100)
    assert main(["dev-loss", "--quick", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    rows = {row["provider"]: row for row in report["rows"]}
    assert list(rows) == ["eager", "pymlp", "native-1", "native"]
    assert {row["op"] for row in rows.values()} == {"below 2.80"}
    assert all(row["repeats"] == 1 and row["median_us"] > 0 for row in rows.values())
    (failure,) = report["failures"]
    assert failure.endswith("a dev loss below 0.10 was not reached in 400 steps")


def test_many_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(many, "STEPS", 20)
    threads = torch.get_num_threads()
    assert main(["many", "--repeats", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["provider"], row["repeats"]) for row in rows] == [("native-1", 2), ("many", 2)]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nothing"],
            "unknown suite 'nothing'; there are ops, words, step, run, dev-loss, many",
        ),
        (["--out", "x.csv"], "--out must end in .json"),
        (["--batch-sizes", "0"], "must be at least 1, got 0"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def _find_allocator(case: Case, provider: str):
    """A builder that needs 200 MiB, of tasks that need ``batch_size`` MiB, later twice that."""

    def build(case: Case) -> Task:
        torch.ones(200 * 2**18)
        calls: list[int] = []

        def call() -> None:
            calls.append(1)
            torch.ones(min(len(calls), 2) * case.batch_size * 2**18)

        return Task(call, lambda: ({}, {}))

    return build


@pytest.mark.skipif(not memory.available(), reason="needs Linux and glibc")
def test_peak_memory_is_that_of_the_calls() -> None:
    meter = memory.Meter(_find_allocator, threads=1)
    peak = meter.peak(Case("fake", "op", "full", 32, ""), "eager")
    assert peak is not None
    # The system counts in pages, and not at every moment.
    assert peak / 2**20 == pytest.approx(64, abs=2)


def test_results_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    table = results.save(REPORT, path)
    assert results.load(path) == REPORT
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["provider"] for row in rows] == ["eager", "pymlp"]
    assert float(rows[1]["median_us"]) == 48.0
    assert rows[1]["machine_commit"] == "0123456789abcdef"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.csv", "run.json"]


def test_load_names_a_file_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"rows": []}))
    with pytest.raises(ValueError, match=r"run\.json: not a results file"):
        results.load(path)


def test_report_fills_the_readme(tmp_path: Path) -> None:
    path, readme = tmp_path / "run.json", tmp_path / "README.md"
    results.save(REPORT, path)
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    assert report.main([str(path), "--readme", str(readme)]) == 0
    assert readme.read_text() == (
        "before\n"
        "<!-- benchmarks:begin -->\n"
        "| One training step, microseconds | B | PyTorch eager | pymlp |\n"
        "| --- | --: | --: | --: |\n"
        "| sgd (V=27) | 32 | 600 | **48.0 (12.5x)** |\n"
        "\n"
        "| Peak memory on top of the inputs, largest batch, MiB | B | PyTorch eager | pymlp |\n"
        "| --- | --: | --: | --: |\n"
        "| sgd (V=27) | 32 | 3.00 | **1.00** |\n"
        "\n"
        "Medians; in brackets the speed relative to eager, in bold the best. Example CPU, "
        "2 threads on 4 cores, avx2; PyTorch 2.13.0, Python 3.12.1, pymlp 0.1.0, "
        "commit 0123456789ab, 2026-01-02.\n"
        "<!-- benchmarks:end -->\n"
        "after\n"
    )


def test_report_leaves_a_readme_without_markers_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, readme = tmp_path / "run.json", tmp_path / "README.md"
    results.save(REPORT, path)
    readme.write_text("no markers\n")
    assert report.main([str(path), "--readme", str(readme)]) == 1
    assert readme.read_text() == "no markers\n"
    assert "expected one <!-- benchmarks:begin -->" in capsys.readouterr().err


def test_report_draws_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path, picture = tmp_path / "run.json", tmp_path / "docs" / "speed.png"
    results.save(REPORT, path)
    assert report.main([str(path), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_quick_look_has_at_least_one_provider_of_every_suite():
    for suite in run.SUITES.values():
        case = suite.cases([32], ["full"])[0]
        assert set(suite.builders(case)) & set(QUICK_PROVIDERS), suite.name
