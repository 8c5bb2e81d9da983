"""README.md is a page whose code runs: every command, every line of Python, the output shown."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from pymlp.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Options that make the commands short, in place of those that the page has.
SHORT = {"train": ["--steps", "60"], "bench": ["--help"]}
TEXT = "the cat sat on the mat\nthe dog sat\na cat ran to a dog\n" * 20


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    lines = [
        line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()
    ]
    return [line for line in lines if line]


def test_the_readme_is_one_page():
    assert len(README.splitlines()) <= 120


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A place with a text and, once the commands have run, the run directory runs/lecture."""
    path = tmp_path_factory.mktemp("readme")
    (path / "text.txt").write_text(TEXT)
    return path


def test_every_command_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    ran = []
    for line in commands():
        program, *arguments = shlex.split(line)
        assert program == "pymlp"
        short = SHORT.get(arguments[0], [])
        if "--resume" in arguments:
            short = ["--steps", "90"]
        if "--steps" in arguments and "--steps" in short:
            at = arguments.index("--steps")
            del arguments[at : at + 2]
        result = CliRunner().invoke(main, [*arguments, *short])
        assert result.exit_code == 0, (line, result.output)
        ran.append(arguments[0])
    assert set(main.commands) - set(ran) <= {"table", "rescore"}  # shown in docs/


def test_the_python_runs_and_prints_what_is_shown(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    twelve_lines, more = blocks("python")
    (shown, _) = blocks("text")
    names = {}
    exec(twelve_lines, names)
    printed = capsys.readouterr().out.splitlines()
    loss = re.compile(r"dev loss (\d\.\d+) nats per token, \d+\.\d seconds")
    found, expected = (float(loss.fullmatch(x[0])[1]) for x in (printed, shown.splitlines()))
    assert found == pytest.approx(expected, abs=0.02)  # the last digits are the processor's
    assert len(printed) == len(shown.splitlines())
    assert all(re.fullmatch("[a-z]+", name) for name in printed[1:])
    exec(more.replace("2_000", "200"), names)
    assert "dev loss" in capsys.readouterr().out
