"""Print what `ptxas -v` says of the hot CUDA kernels, as the table of docs/cuda.md.

Needs nvcc and c++filt, no GPU. Exit code 1 if one of them spills registers in any type.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("80", "90")
SHOWN = re.compile(r"<(float|bfloat16)\b")
HOT = (
    "CrossEntropyForwardRows",
    "CrossEntropyBackwardRows",
    "LinearCrossEntropyRows",
    "HiddenFromTables",
    "SumByToken",
    "SumRowsByToken",
    "HiddenProduct",
    "LogitsProduct",
    "UpdateParameters",
)


def nvcc() -> str:
    """Path of nvcc, on PATH or where CUDA installs itself."""
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        sys.exit("ptxas_report: needs nvcc on PATH")
    return found


def compile_verbosely(architecture: str) -> str:
    """What ptxas prints while the kernels are compiled."""
    with tempfile.TemporaryDirectory() as directory:
        command = [nvcc(), "-std=c++17", "-O3", f"-I{ROOT / 'csrc'}", "-Xptxas", "-v"]
        command += [f"-gencode=arch=compute_{architecture},code=sm_{architecture}"]
        command += ["-c", str(ROOT / "csrc/kernels/cuda/kernels.cu")]
        command += ["-o", str(Path(directory) / "kernels.o")]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(result.stderr)
    return result.stdout + result.stderr


def kernel_name(symbol: str) -> str:
    """`CrossEntropyForwardRows<float, 256>` from the symbol of run_kernel<...>."""
    filtered = subprocess.run(["c++filt", symbol], capture_output=True, text=True).stdout
    kernel = re.search(r"run_kernel<(.*?) ?>\(", filtered)
    if kernel is None:
        return symbol
    name = re.sub(r"pymlp::(cuda::)?", "", kernel.group(1))
    return re.sub(r"TileProduct<(.*), (\d+)>", r"\1, tile of \2", name)


def kernels(log: str) -> dict[str, tuple[int, int]]:
    """Registers and spilled bytes of each kernel."""
    found = {}
    pattern = re.compile(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers",
        re.DOTALL,
    )
    for symbol, stores, loads, registers in pattern.findall(log):
        found[kernel_name(symbol)] = (int(registers), int(stores) + int(loads))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every kernel in every type")
    everything = parser.parse_args().all
    tables = {a: kernels(compile_verbosely(a)) for a in ARCHITECTURES}
    print("| kernel | " + " | ".join(f"sm_{a}: registers, spilled" for a in ARCHITECTURES) + " |")
    print("|" + "---|" * (len(ARCHITECTURES) + 1))
    spilled = 0
    for name in sorted(tables[ARCHITECTURES[0]]):
        cells = [tables[a].get(name, (0, 0)) for a in ARCHITECTURES]
        if name.startswith(HOT):
            spilled += sum(spill for _, spill in cells)
        if not everything and not (name.startswith(HOT) and SHOWN.search(name)):
            continue
        print(f"| {name} | " + " | ".join(f"{r}, {s}" for r, s in cells) + " |")
    sys.exit(1 if spilled else 0)


if __name__ == "__main__":
    main()
