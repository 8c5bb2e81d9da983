"""Print what `ptxas -v` says of the hot CUDA kernels, as the table of docs/cuda.md.

Needs nvcc and c++filt, no GPU. Exit code 1 if one of them spills registers in any type, has a
large stack frame, or is no longer there.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("80", "90")
# Bytes of local memory: the training kernel has some for what it indexes by variables. More than
# these is an object that the compiler could not split into registers.
MOST_STACK = 128
HIDDEN = re.compile(r"\b(double|float16)\b")
HOT = (
    "CrossEntropyForwardRows",
    "CrossEntropyBackwardRows",
    "LinearCrossEntropyRows",
    "HiddenFromTables",
    "SumByToken",
    "SumRowsByToken",
    "HiddenProduct",
    "LogitsProduct",
    "GradientsFromTables",
    "UpdateParameters",
    "TrainModels",
)


def nvcc() -> str:
    """Path of nvcc, on PATH or where CUDA installs itself."""
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        sys.exit("ptxas_report: needs nvcc on PATH")
    return found


def compile_verbosely(source: Path) -> str:
    """The output of ptxas while one source file is compiled for all architectures."""
    targets = ",".join(f"sm_{a}" for a in ARCHITECTURES)
    with tempfile.TemporaryDirectory() as directory:
        command = [nvcc(), "-std=c++17", "-O3", "--expt-relaxed-constexpr", "-fmad=false"]
        command += [
            f"-I{ROOT / 'csrc'}",
            f"--generate-code=arch=compute_{ARCHITECTURES[0]},code=[{targets}]",
        ]
        command += ["-Xptxas", "-v", "-fatbin", "-o", str(Path(directory) / "out"), str(source)]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(result.stderr)
    return result.stdout + result.stderr


def kernel_names(symbols: list[str]) -> list[str]:
    """`CrossEntropyForwardRows<float, 256>` from the symbol of run_kernel<...>, and so on."""
    command = ["c++filt", *symbols]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = re.sub(r"pymlp::(cuda::)?", "", names)
    names = re.sub(r"void run_kernel<(.*?) ?>\(.*", r"\1", names)
    return re.sub(r"TileProduct<(.*), (\d+)>", r"\1, tile of \2", names).splitlines()


@dataclass(frozen=True)
class Figures:
    """A kernel's figures on one architecture: registers of a thread, bytes of stack and spilled."""

    registers: int
    stack: int
    spilled: int

    def __str__(self) -> str:
        return f"{self.registers}, {self.stack}, {self.spilled}"


def kernels(log: str) -> dict[str, dict[str, Figures]]:
    """Figures of each kernel on each architecture."""
    pattern = re.compile(
        r"Compiling entry function '(\w+)' for 'sm_(\d+)'.*?(\d+) bytes stack frame, "
        r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
        re.DOTALL,
    )
    found = pattern.findall(log)
    table: dict[str, dict[str, Figures]] = {}
    for name, (_, architecture, *numbers) in zip(
        kernel_names([symbol for symbol, *_ in found]), found, strict=True
    ):
        stack, stores, loads, registers = map(int, numbers)
        table.setdefault(name, {})[architecture] = Figures(registers, stack, stores + loads)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every kernel in every type")
    everything = parser.parse_args().all
    sources = sorted((ROOT / "csrc/kernels/cuda").glob("*.cu"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        table = kernels("".join(pool.map(compile_verbosely, sources)))
    missing = [name for name in HOT if not any(kernel.startswith(name + "<") for kernel in table)]
    if missing:
        sys.exit(f"ptxas_report: no kernel is called {', '.join(missing)}")
    print("| kernel | " + " | ".join(f"sm_{a}" for a in ARCHITECTURES) + " |")
    print("|" + "---|" * (len(ARCHITECTURES) + 1))
    bad = []
    for name, figures in sorted(table.items()):
        hot = name.startswith(HOT)
        if hot and any(f.spilled or f.stack > MOST_STACK for f in figures.values()):
            bad.append(name)
        if everything or (hot and not HIDDEN.search(name)):
            cells = [str(figures[a]) for a in ARCHITECTURES]
            print(f"| {name} | {' | '.join(cells)} |")
    if bad:
        sys.exit(
            "ptxas_report: hot kernels spill registers or have a stack of more than "
            f"{MOST_STACK} bytes: {'; '.join(bad)}"
        )


if __name__ == "__main__":
    main()
