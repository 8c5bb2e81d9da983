"""Command line of the benchmarks: ``python -m benchmarks`` and ``pymlp bench``."""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from . import device, machine, memory, providers, results, run
from .harness import Case

PROGRAM = "pymlp bench" if __package__ == "pymlp.benchmarks" else "python -m benchmarks"
BATCH_SIZES = [32, 256, 4096, 65536]
QUICK_BATCH_SIZES = [32, 4096]
QUICK_PROVIDERS = ["eager", "pymlp", "native-1", "native", "many"]
DISTURBED_CORES = 0.25


def parser() -> argparse.ArgumentParser:
    """The options; defaults that depend on --quick are None here."""
    result = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Check every provider against a float64 truth, then time them side by side.",
        epilog=f"Example: {PROGRAM} step --batch-sizes 32 --providers eager pymlp",
    )
    add = result.add_argument
    others = ", ".join(suite.name for suite in run.SUITES.values() if not suite.by_default)
    add("suites", nargs="*", metavar="SUITE",
        help=f"{', '.join(run.SUITES)} (default: all but {others})")  # fmt: skip
    add("--providers", nargs="+", choices=list(providers.LABELS), metavar="NAME",
        help=f"{', '.join(providers.LABELS)} (default: all that are there)")  # fmt: skip
    add("--batch-sizes", nargs="+", type=_positive, metavar="B", help=f"default: {BATCH_SIZES}")
    add("--modes", nargs="+", choices=run.MODES, default=list(run.MODES), metavar="MODE",
        help=f"of suite ops: {', '.join(run.MODES)} (default: all)")  # fmt: skip
    add("--device", default="cpu", type=_device, metavar="DEVICE",
        help="cpu, cuda or cuda:N (default: cpu)")  # fmt: skip
    add("--threads", type=_positive, metavar="N", help="default: torch's own choice")
    add("--repeats", type=_positive, metavar="N", help="samples of each (default: 21)")
    add("--quick", action="store_true",
        help=f"B in {QUICK_BATCH_SIZES}, {', '.join(QUICK_PROVIDERS)}, 5 short samples, "
        "no memory; for a first look, not for publishing")  # fmt: skip
    add("--out", type=Path, metavar="FILE.json", help="written after every case; FILE.csv, too")
    instead = result.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true",
        help="say what would be measured, and stop")  # fmt: skip
    instead.add_argument("--json", action="store_true",
        help="print the results as one line of JSON on stdout, not as tables")  # fmt: skip
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks; 0, 1 if a provider failed, 2 for wrong usage (raised by argparse)."""
    command = parser()
    chosen = command.parse_args(argv)
    for name in chosen.suites:
        if name not in run.SUITES:
            command.error(f"unknown suite {name!r}; there are {', '.join(run.SUITES)}")
    if chosen.out is not None and chosen.out.suffix != ".json":
        command.error(f"--out must end in .json, got {chosen.out}")
    if chosen.threads is not None:
        _set_threads(chosen.threads)
    device.use(chosen.device)
    for name in chosen.suites:
        if device.is_gpu() and not run.SUITES[name].on_gpu:
            command.error(f"suite {name!r} does not measure GPUs")
    cases = _cases(chosen)
    wanted = _providers(chosen, command)
    if chosen.list:
        _list(cases, wanted)
        return 0
    report = _run(cases, _options(chosen, wanted), chosen.out)
    if chosen.json:
        print(json.dumps(asdict(report)))
    else:
        from . import table  # which needs rich, as the figures alone do not

        table.show(report)
    if chosen.out is not None:
        _log(f"wrote {chosen.out} and {results.save(report, chosen.out)}")
    return 1 if report.failures else 0


def _cases(chosen: argparse.Namespace) -> list[Case]:
    batch_sizes = chosen.batch_sizes or (QUICK_BATCH_SIZES if chosen.quick else BATCH_SIZES)
    by_default = [
        name
        for name, suite in run.SUITES.items()
        if (suite.on_gpu if device.is_gpu() else suite.by_default)
    ]
    suites = [run.SUITES[name] for name in chosen.suites or by_default]
    return [case for suite in suites for case in suite.cases(batch_sizes, chosen.modes)]


def _providers(chosen: argparse.Namespace, command: argparse.ArgumentParser) -> tuple[str, ...]:
    """The providers asked for, which must be there, or all that are there."""
    candidates = chosen.providers or (QUICK_PROVIDERS if chosen.quick else providers.LABELS)
    wanted = []
    for name in candidates:
        reason = providers.missing(name)
        if reason is None:
            wanted.append(name)
        elif chosen.providers:
            command.error(f"provider {name!r}: {reason}")
        else:
            _log(f"{name}: skipped, {reason}")
    return tuple(wanted)


def _options(chosen: argparse.Namespace, wanted: tuple[str, ...]) -> run.Options:
    meter = None
    if not chosen.quick and not device.is_gpu() and memory.available():
        meter = memory.Meter(run.builder, torch.get_num_threads())
    return run.Options(
        providers=wanted,
        repeats=chosen.repeats or (5 if chosen.quick else 21),
        sample_seconds=0.005 if chosen.quick else 0.02,
        meter=meter,
    )


def _run(cases: list[Case], options: run.Options, out: Path | None) -> results.Report:
    report = results.Report(machine.describe(), [], [])
    start = time.perf_counter()
    for number, case in enumerate(cases, 1):
        _log(f"[{number}/{len(cases)}, {time.perf_counter() - start:.0f} s] {case}")
        rows, failures = run.run_case(case, run.SUITES[case.suite], options)
        report.rows.extend(rows)
        report.failures.extend(failures)
        for failure in failures:
            _log(f"FAILED {failure}")
        if rows and (rows[0].others or 0.0) > DISTURBED_CORES:
            _log(f"disturbed: other processes used {rows[0].others} cores; measure again when idle")
        if out is not None:
            results.save(report, out)  # whatever ends the run leaves what was measured before
    return report


def _set_threads(count: int) -> None:
    """For torch, and for XLA, which reads the variable when JAX starts."""
    torch.set_num_threads(count)
    os.environ["NPROC"] = str(count)


def _list(cases: list[Case], wanted: tuple[str, ...]) -> None:
    for case in cases:
        able = [name for name in run.SUITES[case.suite].builders(case) if name in wanted]
        print(f"{case}: {', '.join(able)}")


def _device(text: str) -> torch.device:
    try:
        found = torch.device(text)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:N, got {text!r}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(
            f"{text}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices"
        )
    return found


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
