"""scripts/gpu_check.sh as on a machine with a GPU: the programs only write down their calls."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "gpu_check.sh"
STEPS = [
    *("configure", "build", "build-cuda-tests", "install", "import"),
    *("cpu-kernels", "cuda-kernels", "memcheck", "racecheck", "gpu-tests", "gpu-engine-tests"),
    *("training-benchmarks", "benchmarks"),
]
CMAKE = "build/gpu_check/cmake"
PROGRAMS = (
    *("bin/nvcc", "bin/cmake", "bin/ninja", "bin/compute-sanitizer", "bin/python3"),
    *(f"{CMAKE}/pymlp_tests", f"{CMAKE}/tests/cpp/cuda/pymlp_cuda_tests"),
)
PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in
    *get_device_name*) echo "NVIDIA H100 80GB HBM3" ;;
    *get_device_capability*) echo 90 ;;
    "$FAILS"*) exit 1 ;;
esac
"""


@pytest.fixture
def check(tmp_path):
    """Runs a copy of the script; gives its exit code, its lines, and the calls it made."""
    for name in PROGRAMS:
        program(tmp_path / name)
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "gpu_check.sh"
    script.write_text(SCRIPT.read_text())
    calls = tmp_path / "calls"

    def run(fails="nothing", **environment):
        result = subprocess.run(
            ["bash", str(script)],
            env={
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "CALLS": str(calls),
                "FAILS": fails,
                **environment,
            },
            capture_output=True,
            text=True,
        )
        return result.returncode, (result.stdout + result.stderr).splitlines(), calls.read_text()

    return run


def program(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROGRAM)
    path.chmod(0o755)


def test_every_step_runs_for_this_gpu_and_writes_its_results(check):
    code, (head, *steps, end), calls = check()
    assert head.startswith("gpu NVIDIA H100 80GB HBM3; ")
    assert [step.split()[:2] for step in steps] == [
        *([name, "ok"] for name in STEPS[:-1]),
        ["wrote", "benchmarks/results/nvidia-h100-80gb-hbm3-training.json"],
        [STEPS[-1], "ok"],
        ["wrote", "benchmarks/results/nvidia-h100-80gb-hbm3.json"],
    ]
    assert end.endswith("failed: nothing; skipped: nothing")
    assert code == 0
    assert "-DPYMLP_CUDA_ARCHITECTURES=90\n" in calls
    for sanitizer in ("memcheck", "racecheck"):
        assert f"compute-sanitizer --tool {sanitizer} --error-exitcode 1 " in calls
    assert "--device cuda" in calls
    assert "--out benchmarks/results/nvidia-h100-80gb-hbm3.json" in calls


def test_a_failed_step_fails_the_check_and_keeps_nothing_else_from_running(check):
    code, (_, *steps, end), _ = check("--tool racecheck")
    assert [line.split()[0] for line in steps if " FAILED " in line] == ["racecheck"]
    assert sum(" ok " in line for line in steps) == len(STEPS) - 1
    assert end.endswith("failed: racecheck; skipped: nothing")
    assert code == 1


def test_nothing_starts_after_ten_minutes(check):
    code, (_, *steps, _), calls = check(SECONDS="595")
    assert [line.split() for line in steps] == [
        [name, "FAILED", "no", "time", "left"] for name in STEPS
    ]
    assert code == 1
    assert "memcheck" not in calls


def test_an_old_python_is_an_error(check):
    code, lines, _ = check("-P")
    assert code == 1
    assert lines == ["gpu_check: python3 is not Python 3.11 or newer"]
