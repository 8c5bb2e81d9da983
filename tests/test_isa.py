"""Choosing the instruction set: by default, by call, by environment variable."""

import math
import os
import subprocess
import sys

import pytest
import torch
from ops_testing import LANES, OPS, make_case, results

from pymlp import _engine, functional, isa


def run_python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_available_sets_are_known_and_end_with_the_baseline():
    names = isa.available()
    assert names[-1] == "baseline"
    assert len(set(names)) == len(names)
    assert set(names) <= set(LANES)


def test_use_changes_the_code_that_runs(isa):
    # The fixture asserts the name and the vector width that was compiled in.
    assert _engine.active_isa() == isa
    assert _engine.active_lanes() == LANES[isa]


def test_instruction_sets_agree():
    before = isa.active()
    try:
        for op in OPS:
            case = make_case(op, N=40, V=27, E=10, H=70).to(torch.float32)
            found = []
            for name in isa.available():
                isa.use(name)
                found.append(results(functional, case))
            for other in found[1:]:
                for key, value in other.items():
                    torch.testing.assert_close(value, found[0][key], rtol=1e-5, atol=1e-6)
    finally:
        isa.use(before)


@pytest.mark.parametrize("name", ["", "sse9", "AVX2", "auto"])
def test_unknown_names_raise_and_change_nothing(name):
    before = isa.active()
    with pytest.raises(ValueError, match=f"'{name}'.*cannot be used.*{', '.join(isa.available())}"):
        isa.use(name)
    assert isa.active() == before


def test_environment_variable_forces(monkeypatch):
    before = isa.active()
    try:
        for name in reversed(isa.available()):
            monkeypatch.setenv("PYMLP_ISA", name)
            isa.use_environment()
            assert (isa.active(), _engine.active_lanes()) == (name, LANES[name])
    finally:
        isa.use(before)


@pytest.mark.parametrize(("variable", "expected"), [("baseline", -1), ("", 0)])
def test_import_follows_the_environment_and_else_takes_the_fastest(variable, expected):
    name = isa.available()[expected]
    code = "from pymlp import _engine; print(_engine.active_isa(), _engine.active_lanes())"
    run = run_python("-c", f"import pymlp; {code}", PYMLP_ISA=variable)
    assert run.stdout.split() == [name, str(LANES[name])], run.stderr


@pytest.mark.parametrize(
    ("arguments", "traceback"),
    [
        (["-c", "import pymlp"], True),
        (["-c", "import _pymlp_main; _pymlp_main.main()", "info"], False),
        (["-m", "pymlp", "info"], False),
    ],
)
def test_environment_variable_with_an_unknown_name(arguments, traceback):
    run = run_python(*arguments, PYMLP_ISA="sse9")
    assert (run.returncode, run.stdout) == (1, "")
    message = run.stderr.splitlines()[-1]
    assert "environment variable PYMLP_ISA: " in message
    assert "instruction set 'sse9' cannot be used here" in message
    assert f"this machine has: {', '.join(isa.available())}" in message
    assert ("Traceback" in run.stderr) == traceback
    assert traceback or run.stderr.count("\n") == 1


def test_probabilities_that_would_be_subnormal_are_0(isa):
    logits = torch.tensor([0.0, -86.0, -88.0, -103.0, -torch.inf]).repeat(512, 1)
    target = torch.tensor([0, 0, 0, -100]).repeat(128)

    def gradient_of(logits):
        logits = logits.clone().requires_grad_()
        functional.cross_entropy(logits, target, reduction="sum").backward()
        return logits.grad

    gradient = gradient_of(logits)
    assert gradient[0, 1].item() == pytest.approx(math.exp(-86), rel=1e-5)
    assert not gradient[:, 2:].any()
    gradient = gradient_of(logits.double())
    assert gradient[0, 3].item() == pytest.approx(math.exp(-103), rel=1e-12)
    assert not gradient[:, 4].any()
