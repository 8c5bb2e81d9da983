"""`import pymlp` loads little, needs no GPU and leaves torch as it was."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

# Packages such as click, matplotlib or safetensors are imported where they are used.
CODE = """
import sys
import torch
state = lambda: (
    torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype(),
    torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
    torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision(),
    torch.get_rng_state().tolist(),
)
before, modules = state(), set(sys.modules)
import warnings
filters = list(warnings.filters)
import pymlp
assert state() == before, "torch's global state has changed"
assert list(warnings.filters) == filters, "the warnings filters have changed"
loaded = {name.partition(".")[0] for name in set(sys.modules) - modules}
assert loaded - sys.stdlib_module_names == {"pymlp"}, loaded
loss = pymlp.cross_entropy(torch.zeros(2, 4), torch.tensor([0, 1]))
print(round(loss.item(), 4))
"""


def test_import_is_lean_and_leaves_torch_alone_without_a_gpu():
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYMLP_ISA": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "1.3863\n"  # log 4, and nothing else is printed
    assert run.stderr == ""


@pytest.mark.parametrize(
    ("start", "traceback"), [("import pymlp", True), ("import _pymlp_main as m; m.main()", False)]
)
def test_without_the_native_libraries_it_says_how_to_build_them(start, traceback):
    code = f"import sys; sys.modules['pymlp._engine'] = None; {start}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    message = "the native libraries are missing. Build them with `pip install -e .`"
    assert message in run.stderr.splitlines()[-1]
    assert ("Traceback" in run.stderr) == traceback


def test_a_source_tree_that_hides_the_installed_copy_says_so(tmp_path):
    """`pip install .` and then Python in the clone: the folder there comes first."""
    source = Path(__file__).resolve().parents[1] / "pymlp"
    shutil.copytree(
        source, tmp_path / "clone/pymlp", ignore=shutil.ignore_patterns("*.so", "*.dylib")
    )
    installed = tmp_path / "site/pymlp"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    # Without site no .pth file leads back to the checkout; the path does for torch.
    path = os.pathsep.join([str(installed.parent), sysconfig.get_path("purelib")])
    run = subprocess.run(
        [sys.executable, "-S", "-c", "import pymlp"],
        cwd=tmp_path / "clone",
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert f"hides the pymlp that is installed in {installed.parent}" in run.stderr.splitlines()[-1]


def test_a_bare_environment_is_told_all_that_building_needs():
    backend = Path(__file__).resolve().parents[1] / "scripts/build_backend.py"
    run = subprocess.run(
        [sys.executable, "-I", "-S", backend], env={"PATH": ""}, capture_output=True, text=True
    )
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert "setuptools>=77, cmake>=3.25, ninja, pybind11>=3.0, torch>=2.11" in line
