"""What a stranger installs: a wheel built from the source distribution, away from the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
NATIVE = {"_engine", "_ops", "libpymlp_kernels"}

CODE = """
import torch
import pymlp
import pymlp.benchmarks
print(pymlp.__file__)
print(round(pymlp.cross_entropy(torch.zeros(512, 4), torch.zeros(512, dtype=torch.long)).item(), 4))
"""


def python(*arguments, cwd, **environment):
    run = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the source distribution alone, with the tools of this environment."""
    out = tmp_path_factory.mktemp("dist")
    base = ["-q", "egg_info", "--egg-base", out]
    python("setup.py", *base, "sdist", "--dist-dir", out, cwd=ROOT)
    (sdist,) = out.glob("pymlp-*.tar.gz")
    pip = ["-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    python(*pip, "--wheel-dir", out, sdist, cwd=out)
    (built,) = out.glob("pymlp-*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    files = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    native = {path.name.split(".")[0] for path in files if path.suffix in {".so", ".dylib"}}
    assert native == NATIVE
    package = [path for path in files if path.parts[0] == "pymlp"]
    top = {path.parts[0] for path in files}
    (info,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {"pymlp", "_pymlp_main.py", info}
    assert {path.suffix for path in package} <= {".py", ".pyi", ".typed", ".txt", ".so", ".dylib"}
    assert {"names.txt", "py.typed", "_engine.pyi"} <= {path.name for path in package}
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.split("-")[2:4] == [tag, tag]  # _engine speaks one Python's language


def test_the_installed_wheel_runs_away_from_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    pip = ["-m", "pip", "install", "--no-deps", "--no-index", "--target", site]
    python(*pip, wheel, cwd=tmp_path)

    def installed(*arguments):
        # Without site, no .pth file leads back to the checkout; the path does for the dependencies.
        path = os.pathsep.join([str(site), sysconfig.get_path("purelib")])
        return python("-S", *arguments, cwd=tmp_path, PYTHONPATH=path)

    path, loss = installed("-c", CODE).splitlines()
    assert Path(path).is_relative_to(site)
    assert loss == "1.3863"  # log 4
    pymlp = ["-m", "pymlp"]
    installed(*pymlp, "train", "--steps", "20", "--n-hidden", "8", "--out", "run")  # bundled names
    assert len(installed(*pymlp, "sample", "run", "-n", "3").splitlines()) >= 3
