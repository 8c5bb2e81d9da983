"""Damaged files of every kind: each command ends with a result or one line that says what is wrong.

A case is a kind of file and a number, from which everything random is drawn. Each kind has
`_CASES` of them; PYMLP_FUZZ_SECONDS=60 in the environment goes on for so many seconds a kind.
"""

import faulthandler
import gzip
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save_file

from pymlp.cli import main
from pymlp.data import names

_CASES = 25
_SECONDS_A_COMMAND = 20
_STATM = Path("/proc/self/statm")
_MEMORY = 3 * 2**30  # bytes that a command may ask for

_SCALARS = [None, True, -1, 0, 1, 2**31, 2**40, 2**63, 2**64, -(10**30), 0.5, 1e308, -1e-320]
_SCALARS += [float("nan"), float("inf"), "", ".", "x" * 1000, "\ud800", "\n", "nan", "1_0"]
_VALUES = [*_SCALARS, [], {}, [[]], [None], {"": {}}, ["a", 1], [0.5, 0.5]]
_BYTES = [b"", b"\0", b"\xff\xfe", b"\n", b"[" * 3000, b"{" * 3000, b"\xed\xa0\x80", b" ", b"-"]


# --- damage ---------------------------------------------------------------------------------------


def _bytes(content, random):
    """Bytes flipped, cut off, left out, doubled or put in."""
    at, end = sorted(random.randint(0, len(content)) for _ in range(2))
    way = random.randrange(6)
    if way == 0:
        return content[:at]
    if way == 1:
        return content[:at] + content[end:]
    if way == 2:
        return content[:end] + content[at:]
    if way == 3:
        return content[:at] + random.choice(_BYTES) + content[at:]
    if way == 4:
        return random.choice(_BYTES)
    flipped = bytearray(content)
    for _ in range(random.randint(1, 8)):
        flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
    return bytes(flipped)


def _nodes(tree):
    """Each container of a tree with a key of it."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _nodes(value)


def _tree(tree, random, values=_VALUES):
    """A value of a tree of JSON or TOML replaced, left out, moved or renamed."""
    container, key = random.choice(list(_nodes(tree)))
    other, elsewhere = random.choice(list(_nodes(tree)))
    way = random.randrange(8)
    if way == 0:
        del container[key]
    elif way == 1:
        container[key] = json.loads(json.dumps(other[elsewhere]))
    elif way == 2 and isinstance(container, dict):
        container[random.choice(["", "x", "format", "\ud800"])] = container.pop(key)
    elif way == 3 and isinstance(container[key], (int, float)):
        container[key] *= random.choice([-1, 2, 0.5, 10**12])
    else:
        container[key] = random.choice(values)


def _json(content, random):
    """JSON, of which a part may be JSON in a str."""
    try:
        tree = [json.loads(content)]
    except ValueError:
        return _bytes(content, random)
    inner = [(c, k) for c, k in _nodes(tree) if isinstance(c[k], str) and c[k].startswith("{")]
    if inner and random.random() < 0.7:
        container, key = random.choice(inner)
        container[key] = _json(container[key].encode(), random).decode(errors="replace")
    else:
        _tree(tree, random)
    return json.dumps(tree[0] if tree else None).encode()


def _json_lines(content, random):
    lines = content.splitlines(keepends=True)
    at = random.randrange(len(lines))
    return b"".join([*lines[:at], _json(lines[at], random).strip() + b"\n", *lines[at + 1 :]])


def _toml(content, random):
    import tomli_w

    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    tree = tomllib.loads(content.decode())
    _tree(tree, random, [value for value in _VALUES if "None" not in repr(value)])
    return tomli_w.dumps(tree).encode(errors="surrogatepass")


def _header(content, random):
    """The header of a safetensors file, of the right length again."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = _json(content[8:end], random)
    return len(header).to_bytes(8, "little") + header + content[end:]


def _tensors(content, random):
    """The tensors of a safetensors file."""
    with open("tensors", "wb") as file:
        file.write(content)
    with safe_open("tensors", framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    name = random.choice(list(tensors))
    tensor = tensors[name]
    way = random.randrange(7)
    if way == 0:
        del tensors[name]
    elif way == 1:
        tensors[name] = tensor.to(random.choice([torch.float16, torch.int32, torch.bool]))
    elif way == 2:
        tensors[name] = tensor[None]
    elif way == 3:
        tensors[name] = tensor.flatten()[1:].clone()
    elif way == 4:
        tensors[random.choice(["", "x", name + ".x", "model.x", "batches.x"])] = tensor.clone()
    else:
        number = random.choice([float("nan"), float("inf"), -1.0, 1e38, 2.0**40])
        place = random.randrange(max(1, tensor.numel()))
        if tensor.is_floating_point():
            number = torch.tensor(number, dtype=torch.float64).to(tensor.dtype)
        elif number != -1:
            number = torch.iinfo(tensor.dtype).max
        tensor.flatten()[place : place + random.choice([1, 10**9])] = number
        tensors[name] = tensor
    save_file(tensors, "tensors", metadata)
    with open("tensors", "rb") as file:
        return file.read()


def _packed(content, random):
    return gzip.compress(_bytes(gzip.decompress(content), random))


def _fields(content, random):
    """An n-best list with other fields."""
    lines = content.decode().splitlines()
    at = random.randrange(len(lines))
    fields = lines[at].split(" ||| ")
    wrong = ["nan", "inf", "-inf", "1_0", "1e999", "", "0x10", "\u0661", "1,5", "a ||| b", "|||"]
    fields[random.randrange(len(fields))] = random.choice(wrong)
    return "\n".join([*lines[:at], " ||| ".join(fields), *lines[at + 1 :]]).encode()


# --- kinds of files -------------------------------------------------------------------------------

_USE = [
    "eval run --json",
    "eval run --best",
    "sample run -n 3 --json",
    "sample run -n 1 --context across",
    "score run names.txt --per-token",
    "score run names.txt --best --json --unnormalized",
    "nearest run a --json",
    "rescore run nbest.txt",
    "plot run --window 3 --embedding",
    "train --resume --out run --steps 9 --json",
]
_GO_ON = ["train --resume --out run --steps 9", "plot run"]
_READ = [
    "info --data {} --json",
    "info --data {} --tokens word",
    "prepare {} --out out.tokens",
    "train --data {} --out new --steps 2 --n-hidden 4",
    "score run {}",
]
_IDS = ["info --data {}", "prepare {}", "train --data {} --out new --steps 2 --n-hidden 4 --json"]
_LISTS = ["rescore run {} --one-best", "rescore run {} --json --weight 0.5"]

# File, what may be done to it, and the commands that read it.
KINDS = {
    "config": ("run/config.toml", [_bytes, _toml, _toml, _toml], _USE),
    "vocabulary": ("run/vocab.json", [_bytes, _json, _json], _USE),
    "state": ("run/state.safetensors", [_bytes, _header, _tensors, _tensors], _GO_ON),
    "metrics": ("run/metrics.jsonl", [_bytes, _json_lines, _json_lines], _GO_ON),
    "losses": ("run/losses.f64", [_bytes], _GO_ON),
    "model": ("run/model.safetensors", [_bytes, _header, _tensors, _tensors], _USE[:-1]),
    "best": ("run/best.safetensors", [_bytes, _header, _tensors, _tensors], [_USE[1], _USE[5]]),
    "tokens": ("names.tokens", [_bytes, _header, _header, _tensors], _IDS),
    "text": ("names.txt", [_bytes], _READ),
    "gzip": ("names.gz", [_bytes, _packed], _READ),
    "n-best": ("nbest.txt", [_bytes, _fields, _fields], _LISTS),
}


class Endless(BaseException):
    """A command did not end; nothing catches this."""


def _stop(signum, frame):
    raise Endless


def run(command):
    """Run a command, bounded in time and memory."""
    sizes = _STATM.read_text().split() if _STATM.exists() else []
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, _stop)
    signal.alarm(_SECONDS_A_COMMAND)
    faulthandler.dump_traceback_later(3 * _SECONDS_A_COMMAND, exit=True)  # where no signal helps
    if sizes:
        limit = int(sizes[0]) * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            warnings.simplefilter("error", RuntimeWarning)
            return CliRunner().invoke(main, command.split())
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def complaint(result):
    """What is wrong with the end of a command; None if nothing is."""
    if not isinstance(result.exception, SystemExit | None):
        return repr(result.exception)
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    if result.exit_code not in (0, 1, 2) or len(errors) != (result.exit_code > 0):
        return f"exit code {result.exit_code}: {result.stderr}"
    told = errors and lines[-1] == errors[0] and "a bug of pymlp" not in lines[-1]
    # Lack of memory is no answer to a small file.
    return result.stderr if errors and (not told or "not enough memory" in lines[-1]) else None


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A directory with files of each kind."""
    folder = tmp_path_factory.mktemp("sound")
    before = os.getcwd(), torch.get_num_threads()
    os.chdir(folder)
    torch.set_num_threads(1)
    text = "\n".join(names()[:80])
    (folder / "names.txt").write_text(text + "\n")
    (folder / "names.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "nbest.txt").write_text(
        "0 ||| anna ||| -1.5\n0 ||| bob ||| LM= 2 ||| -2\n1 ||| a ||| 1"
    )
    options = "--steps 6 --batch-size 4 --n-hidden 4 --n-embd 3 --eval-every 2 --log-every 2"
    for command in (
        "prepare names.txt --out names.tokens",
        f"train --data names.txt --out run --optimizer adamw --average 4 {options} --json",
    ):
        result = run(command)
        assert result.exit_code == 0, result.stderr
    yield folder
    os.chdir(before[0])
    torch.set_num_threads(before[1])


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_one_line(kind, sound, tmp_path, monkeypatch):
    monkeypatch.setenv("PYMLP_TRACEBACK", "1")
    name, ways, commands = KINDS[kind]
    end = time.monotonic() + float(os.environ.get("PYMLP_FUZZ_SECONDS", 0))
    complaints = {}
    for number in itertools.count():
        if number >= _CASES and time.monotonic() > end:
            break
        drawn = random.Random(f"{kind} {number}")
        folder = shutil.copytree(sound, tmp_path / str(number))
        monkeypatch.chdir(folder)
        damage = drawn.choice(ways)
        (folder / name).write_bytes(damage((folder / name).read_bytes(), drawn))
        command = drawn.choice(commands).format(name)
        found = complaint(run(command))
        if found:
            last = found.splitlines()[-1]
            complaints.setdefault(last, f"case {number}, in {folder}: pymlp {command}\n{found}")
        else:
            shutil.rmtree(folder)
    assert not complaints, "\n\n".join(complaints.values())
