"""What the linker may merge: nothing that was compiled for one instruction set with other code."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[1] / "build" / f"cmake-{sys.implementation.cache_tag}"
OBJECTS = sorted(BUILD.glob("CMakeFiles/pymlp_kernels.dir/csrc/kernels/cpu/isa_*.o"))
NM = shutil.which("nm")


def mergeable_symbols(path):
    """Mangled names of which the linker keeps one copy, whichever object file it is from."""
    command = [NM, "--defined-only", str(path)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    symbols = (line.split(maxsplit=2)[1:] for line in listing.splitlines())
    return [name for kind, name in symbols if kind in ("W", "V", "u")]


@pytest.mark.skipif(NM is None or sys.platform != "linux", reason="needs GNU or LLVM nm on Linux")
@pytest.mark.skipif(not OBJECTS, reason="the package was not built in this source tree")
@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name.partition(".")[0])
def test_code_of_an_instruction_set_has_names_of_its_own(path):
    isa = path.name.partition(".")[0].removeprefix("isa_")
    namespace = f"{len(isa)}{isa}"  # as it is mangled
    symbols = mergeable_symbols(path)
    assert any(namespace in name for name in symbols)
    assert [name for name in symbols if namespace not in name] == []
