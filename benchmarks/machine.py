"""The machine that the figures were taken on, and its software."""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pymlp import isa

from . import device

ROOT = Path(__file__).resolve().parent.parent
_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Machine:
    """Hardware, software and the state of the checkout; unknown entries are None.

    gpu and driver are those of the device that was measured, None for the CPU.
    """

    cpu: str
    cores: int
    threads: int
    isa: str
    torch_isa: str
    load: float | None
    os: str
    python: str
    torch: str
    jax: str | None
    pymlp: str | None
    commit: str | None
    date: str
    gpu: str | None = None
    driver: str | None = None


def describe() -> Machine:
    """This machine, now."""
    gpu, driver = device.describe()
    return Machine(
        cpu=_cpu_name(),
        cores=_cores(),
        threads=torch.get_num_threads(),
        isa=isa.active(),
        torch_isa=torch.backends.cpu.get_cpu_capability(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        os=platform.platform(),
        python=platform.python_version(),
        torch=torch.__version__,
        jax=_version("jax"),
        pymlp=_version("pymlp"),
        commit=_commit(),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        gpu=gpu,
        driver=driver,
    )


def other_cpu_seconds() -> float | None:
    """CPU time that all but this process have used, a hypervisor included; None if unknown."""
    if not _STAT.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, _STAT.read_text().split()[1:9])
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return busy - own.user - own.system


def other_cores(before: float | None, seconds: float) -> float | None:
    """Cores that others kept busy for ``seconds``, since `other_cpu_seconds` said ``before``."""
    now = other_cpu_seconds()
    return None if now is None or before is None else round(max(0.0, now - before) / seconds, 2)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the checkout these files lie in, "+" where tracked files differ from it."""
    if not (ROOT / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
