"""Word data on the command line: prepare, train, eval, sample and score."""

import json

import pytest
from click.testing import CliRunner

from pymlp import data
from pymlp.cli import main
from pymlp.commands.sample import show

TEXT = "the cat sat .\nthe dog sat .\n\nThe cat ran .\n" * 30
SMALL = ["--n-embd", "4", "--n-hidden", "8", "--batch-size", "8", "--steps", "20", "--lr", "0.1"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, set_num_threads):
    monkeypatch.chdir(tmp_path)
    set_num_threads(1)
    (tmp_path / "x.txt").write_text(TEXT)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def train(source, *options, code=0):
    arguments = ["--data", source, "--out", "run", "--overwrite", *SMALL, *options]
    return run("train", *arguments, code=code)


WORDS = ["--tokens", "word", "--min-count", "31", "--lowercase"]
SPLIT = ["--split", "200,80,rest", "--context", "reset"]


def test_a_text_and_its_token_file_train_alike():
    report = json.loads(run("prepare", "x.txt", *WORDS, "--json").stdout)
    assert report == {
        "tokens": 360,
        "lines": 90,
        "empty_lines_skipped": 30,
        "vocab_size": 6,
        "out": "x.txt.tokens",
    }
    results = []
    for source, options in (("x.txt", WORDS), ("x.txt.tokens", [])):
        train(source, *options, *SPLIT)
        outcome = json.loads(train(source, *options, *SPLIT, "--json").stdout)
        results.append([outcome[name] for name in ("examples", "train_loss", "dev_loss")])
        evaluated = json.loads(run("eval", "run", "--json").stdout)
        assert evaluated["loss"] == outcome["dev_loss"]
    assert results[0] == results[1]
    assert results[0][0] == {"train": 250, "dev": 100, "test": 100}
    samples = json.loads(run("sample", "run", "-n", "50", "--temperature", "0.3", "--json").stdout)
    assert {sample["in"] for sample in samples["samples"]} >= {"new"}
    scored = run("score", "run", "x.txt").stdout.splitlines()[3]
    assert scored.split("\t")[3:] == ["5", "1", "The cat ran ."]  # ran is <unk>, The is the


def test_a_token_file_has_decided_what_a_preset_says_of_vocabularies():
    run("prepare", "x.txt", *WORDS)
    options = ["--preset", "bengio", "--split", "200,80,rest"]
    outcome = json.loads(train("x.txt.tokens", *options, "--json").stdout)
    assert outcome["examples"]["train"] == 250
    result = train("x.txt.tokens", *options, "--min-count", "3", code=1)
    assert "min_count is for texts" in result.stderr


def test_ids_that_a_damaged_token_file_has_are_an_error(tmp_path):
    run("prepare", "x.txt", *WORDS, "--out", "x.tokens")
    content = bytearray((tmp_path / "x.tokens").read_bytes())
    content[-1200:-1196] = (99).to_bytes(4, "little")
    (tmp_path / "x.tokens").write_bytes(content)
    error = train("x.tokens", *SPLIT, "--eval-every", "1", code=1).stderr
    assert "got 99; if they are of a token file, it is damaged: prepare the text again" in error


def test_what_a_preset_says_of_words_does_not_hold_for_characters():
    outcome = json.loads(train("x.txt", "--preset", "bengio", "--tokens", "char", "--json").stdout)
    assert sum(outcome["examples"].values()) == len(TEXT.replace("\n\n", "\n"))


def test_prepared_characters_are_the_default():
    assert "1,170 tokens" in run("prepare", "x.txt", "--out", "chars").stdout
    assert train("chars").exit_code == 0
    with open("x.txt", "w") as file:
        file.write("a\nb\n")
    assert len(data.load("chars").vocabulary) == 15


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--tokens", "byte"], 2, "'byte' is not one of 'char', 'word'"),
        (["--split", "3,4"], 2, "split must be 'lines' or numbers of tokens such as"),
        (["--split", "300,61,rest", "--tokens", "word"], 1, "x.txt: the split wants 361 tokens"),
        (["--min-count", "2"], 1, "words can be left out"),
        (["--vocab-size", "1"], 2, "1 is not in the range x>=2"),
    ],
)
def test_wrong_usage(arguments, code, message):
    result = train("x.txt", *arguments, code=code)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_errors_of_prepare():
    with open("bad.txt", "wb") as file:
        file.write(b"ok\n\xff")
    assert "line 2, byte 3" in run("prepare", "bad.txt", code=1).stderr
    assert "does not exist" in run("prepare", "nothing.txt", code=2).stderr
    text = run("prepare", "x.txt", "--out", "x.txt", code=1).stderr
    assert "would replace its text" in text
    assert "what a token file holds" not in run("prepare", "--help").stdout


def test_samples_are_not_padded_to_the_longest(capsys):
    show(["a", "b" * 500], ["train", "new"])
    short, long = capsys.readouterr().out.splitlines()
    assert short.split() == ["a", "train"]
    assert len(short) < 80
    assert long == "b" * 500 + "  new"
