"""How data come in: pipes, whatever holds lines, files of splits, changed token files."""

import gzip
import json
import os
import random
import threading

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.utils.data import DataLoader

import pymlp
from pymlp import MLP, MLPConfig, TrainConfig, Trainer, nbest
from pymlp.cli import main
from pymlp.data import (
    DataConfig,
    Dataset,
    Examples,
    Splits,
    Vocabulary,
    encode,
    load,
    open_token_file,
    prepare,
    read_lines,
    report,
    split,
)
from pymlp.ngram import KneserNey
from pymlp.rundir import RunDirectory
from pymlp.sampling import membership
from pymlp.scoring import log_z

LINES = ["emma", "olivia", "ava", "isabella", "sophia", "mia", "amelia", "zoe", "lea", "ida"]
TEXT = "\n".join(LINES).encode()
SMALL = ["--n-embd", "4", "--n-hidden", "8", "--batch-size", "8", "--steps", "10"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_bytes(TEXT)
    return tmp_path


def run(*arguments, code=0, stdin=None):
    result = CliRunner().invoke(main, list(map(str, arguments)), input=stdin)
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def fifo(folder, content):
    """A FIFO whose first byte comes alone."""
    path = folder / "pipe"
    os.mkfifo(path)

    def write():
        with open(path, "wb", buffering=0) as file:
            for piece in (content[:1], content[1:]):
                file.write(piece)

    threading.Thread(target=write, daemon=True).start()
    return path


# --- pipes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "gzip", "tokens"])
def test_a_pipe_holds_what_a_file_holds(folder, form):
    prepare("x.txt", "x.tokens")
    content = {"plain": TEXT, "gzip": gzip.compress(TEXT), "tokens": None}[form]
    piped = fifo(folder, content or (folder / "x.tokens").read_bytes())
    data, expected = load(piped, 3), load("x.txt", 3)
    assert (data.digest, data.lines) == (expected.digest, expected.lines)
    assert "source" not in data.origin
    assert expected.origin["source"] == os.path.realpath("x.txt")


def test_other_doors_read_a_pipe_once(folder):
    prepare(fifo(folder, TEXT), "piped.tokens")
    prepare("x.txt", "x.tokens")
    assert (folder / "piped.tokens").read_bytes() == (folder / "x.tokens").read_bytes()
    (folder / "pipe").unlink()
    assert read_lines(fifo(folder, gzip.compress(TEXT))) == LINES
    (folder / "pipe").unlink()
    assert load(fifo(folder, b"a"), 3).sizes == {"train": 0, "dev": 0, "test": 2}
    (folder / "pipe").unlink()
    with pytest.raises(ValueError, match=r"pipe: there are no lines to learn from"):
        load(fifo(folder, b""), 3)
    with open("x.txt", "rb") as file:
        assert load(file, 3).lines == load("x.txt", 3).lines
    with open("x.txt") as file, pytest.raises(TypeError, match="opened for bytes"):
        load(file, 3)


def test_commands_read_pipes_and_standard_input(folder):
    expected = json.loads(run("info", "--data", "x.txt", "--json").stdout)
    reading, writing = os.pipe()
    os.write(writing, TEXT)
    os.close(writing)
    for place, stdin in ((f"/dev/fd/{reading}", None), ("-", TEXT), ("-", gzip.compress(TEXT))):
        found = json.loads(run("info", "--data", place, "--json", stdin=stdin).stdout)
        assert found | {"data": "x.txt"} == expected
    os.close(reading)
    run("prepare", "-", "--out", "x.tokens", stdin=TEXT)
    assert load("x.tokens").digest == load("x.txt").digest
    assert "--out is needed" in run("prepare", "-", code=2, stdin=TEXT).stderr
    run("train", "--data", "-", "--out", "run", *SMALL, stdin=TEXT)
    assert "source" not in RunDirectory.open("run").config()["data"]
    message = "does not say where its data come from (it was a pipe"
    assert message in run("eval", "run", code=1).stderr
    assert message in run("train", "--resume", "--out", "run", "--steps", "20", code=1).stderr
    resumed = Trainer.resume("run", load("x.txt", 3), steps=20)
    assert resumed.fit().losses.shape == (20,)


# --- whatever holds lines -------------------------------------------------------------------------


class Column:
    """A filtered column of a table, as pandas has them: numbers are labels, not places."""

    ndim = 1

    def __init__(self, values, first_label=100):
        self._values, self._first = list(values), first_label

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)

    def __getitem__(self, label):
        if isinstance(label, slice):
            return Column(self._values[label])
        if label < self._first:
            raise KeyError(label)
        return self._values[label - self._first]

    def __bool__(self):
        raise ValueError("The truth value of a Series is ambiguous.")


HOLDERS = {
    "column": Column,
    "generator": lambda lines: (line for line in lines),
    "array": np.array,
    "objects": lambda lines: np.array(lines, object),
    "tuple": tuple,
    "keys": lambda lines: dict.fromkeys(lines).keys(),
    "with ends": lambda lines: [f"{line}\r\n" for line in lines],
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_lines_come_as_users_have_them(hold):
    expected = Dataset.from_lines(LINES)
    data = Dataset.from_lines(hold(LINES))
    assert (data.digest, data.lines) == (expected.digest, expected.lines)
    vocabulary = expected.vocabulary
    assert split(hold(LINES)) == split(LINES)
    assert Vocabulary.characters(hold(LINES)) == vocabulary
    assert Vocabulary.words(hold(LINES)) == Vocabulary.words([[line] for line in LINES])
    assert np.array_equal(encode(hold(LINES), vocabulary), encode(LINES, vocabulary))
    model = MLP(MLPConfig(len(vocabulary), 3, 2, 4))
    assert pymlp.score(model, vocabulary, hold(LINES)) == pymlp.score(model, vocabulary, LINES)
    assert membership(hold(LINES), data) == membership(LINES, data)
    splits = Splits(hold(LINES[:6]), hold(LINES[6:8]), hold(LINES[8:]))
    assert Dataset.from_splits(splits, vocabulary).sizes["test"] == 8
    splits = Splits(hold(LINES[:6]), hold(LINES[6:8]), hold(LINES[4:]))
    assert report(splits).test.lines == 2


def test_an_open_file_is_read_as_its_path(folder):
    (folder / "gaps.txt").write_text("emma\n\nava\nmia\n\n", encoding="utf-8")
    with open("gaps.txt", encoding="utf-8") as file:
        data = Dataset.from_lines(file)
    assert (data.digest, data.n_empty) == (load("gaps.txt").digest, 2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"emma"], r"lines\[0\] must be a str or a list of str, got bytes b'emma'"),
        (["ann", "bob", 3], r"lines\[2\] must be .* got int 3"),
        (["ann", None], r"lines\[1\] must be .* got NoneType None"),
        (["ann", float("nan")], r"lines\[1\] must be .* got float nan"),
        ([["a", "b"], ["c", 4]], r"lines\[1\]\[1\] must be a str, got int 4"),
        (b"emma", "must be a list of lines, got one bytes b'emma'"),
        (3, "must be a list of lines, got int 3"),
        ({"ann", "bob"}, "a set have no order: pass sorted"),
        ({"ann": 1}, "got a dict"),
        (np.array([["ann", "bob"]]), "got a ndarray: pass one column"),
    ],
)
def test_what_is_no_line_is_refused_by_place_and_value(lines, message):
    vocabulary = Vocabulary.characters(LINES)
    model = MLP(MLPConfig(len(vocabulary), 3, 2, 4))
    for door in (
        Dataset.from_lines,
        lambda x: Dataset.from_splits(Splits(x, x, x), vocabulary),
        split,
        Vocabulary.characters,
        Vocabulary.words,
        lambda x: encode(x, vocabulary),
        lambda x: pymlp.data.examples(x, vocabulary, 3),
        lambda x: pymlp.score(model, vocabulary, x),
        lambda x: log_z(model, vocabulary, x),
        lambda x: report(Splits(x, x, x)),
        lambda x: membership(x, Dataset.from_lines(LINES)),
    ):
        with pytest.raises(TypeError, match=message):
            door(lines)


def test_one_line_is_checked_too():
    vocabulary = Vocabulary.characters(LINES)
    scorer = pymlp.Scorer(MLP(MLPConfig(len(vocabulary), 3, 2, 4)), vocabulary)
    for door in (vocabulary.encode, scorer.score, lambda x: list(scorer.full_scores(x))):
        with pytest.raises(TypeError, match="got bytes b'emma'"):
            door(b"emma")
    with pytest.raises(TypeError, match="n-best line 1 must be a str, got bytes"):
        list(nbest.parse([b"0 ||| emma ||| 1"]))
    with pytest.raises(TypeError, match=r"lines\[1\] must be a str as lines\[0\] is, got list"):
        Dataset.from_lines(["ann", ["bob"]])


# --- examples for others --------------------------------------------------------------------------


@pytest.mark.parametrize("as_table", [False, True])
def test_a_data_loader_takes_a_split(as_table):
    train = Dataset.from_lines(LINES).train
    examples = Examples(train.tokens, train.targets) if as_table else train
    batches = list(DataLoader(examples, batch_size=4))
    assert torch.equal(torch.cat([tokens for tokens, _ in batches]), train.tokens)
    assert torch.equal(torch.cat([targets for _, targets in batches]), train.targets)
    tokens, target = examples[-1]
    assert (tokens.shape, target.shape) == ((3,), ())
    assert torch.equal(tokens, train.tokens[-1])
    assert torch.equal(examples[5:9][0], train.tokens[5:9])
    assert torch.equal(examples[torch.tensor([3, 1])][1], train.targets[[3, 1]])
    assert len(list(examples)) == len(train)
    for outside in (len(train), -len(train) - 1):
        with pytest.raises(IndexError, match=f"index {outside} is not in the range"):
            examples[outside]


def test_ngram_models_take_splits_and_streams():
    data = Dataset.from_lines(LINES)
    model = KneserNey(3, len(data.vocabulary)).fit(data.train)
    ids = data.stream.ids.numpy()
    again = KneserNey(3, len(data.vocabulary)).fit(ids[: data.ends.train])
    assert model.perplexity(data.dev) == again.perplexity(ids[data.ends.train : data.ends.dev])
    assert np.array_equal(model.log_probs(data.stream), model.log_probs(ids))
    for wrong in (data, Examples(data.train.tokens, data.train.targets)):
        with pytest.raises(TypeError, match=r"got a \w+: pass data.train"):
            model.fit(wrong)


# --- splits ---------------------------------------------------------------------------------------


def test_shares_cut_shuffled_lines_anywhere():
    assert load("x.txt", 3, DataConfig(split="0.8,0.1,0.1")).lines == load("x.txt").lines
    for shares, expected in (("0.9,0.1,0", (9, 1, 0)), ("0.7,0.1,0.2", (7, 1, 2))):
        data = load("x.txt", 3, DataConfig(split=shares))
        assert tuple(map(len, data.lines)) == expected
        assert data.lines.train[:7] == load("x.txt").lines.train[:7]
    with pytest.raises(ValueError, match="there are no examples"):
        pymlp.evaluate(
            MLP(MLPConfig(len(data.vocabulary), 3)),
            load("x.txt", 3, DataConfig(split="0.9,0.1,0")).test,
        )
    for wrong in ("0.9,0.2,0", "0.8,0.2", "-0.1,1,0.1", "nan,1,0"):
        with pytest.raises(ValueError, match=r"shares such as '0.9,0.1,0', whose sum is 1"):
            DataConfig(split=wrong)


def test_splits_that_are_files_of_their_own(folder):
    (folder / "dev.txt").write_text("zoë\nava\n", encoding="utf-8")
    (folder / "test.txt").write_text("ida", encoding="utf-8")
    data = load("x.txt", 3, dev="dev.txt", test="test.txt")
    assert data.lines == (LINES, ["zoë", "ava"], ["ida"])
    assert "ë" in data.vocabulary.ids
    run("train", "--data", "x.txt", "--dev", "dev.txt", "--out", "run", *SMALL)
    assert "8 examples" in run("eval", "run").stdout
    assert "there are no examples" in run("eval", "run", "--split", "test", code=1).stderr
    assert Trainer.resume("run").data.lines == (LINES, ["zoë", "ava"], [])
    (folder / "dev.txt").write_text("ava\nzoë\n", encoding="utf-8")
    assert "not the lines that the run was trained on" in run("eval", "run", code=1).stderr
    with pytest.raises(ValueError, match="need dev"):
        load("x.txt", 3, test="test.txt")
    with pytest.raises(ValueError, match="divides one file"):
        load("x.txt", 3, DataConfig(split="3,3,3"), dev="dev.txt")
    words = load("x.txt", 3, DataConfig("word", vocab_from="train"), dev="dev.txt")
    assert words.lines.dev == [["ava"], ["<unk>"]]
    assert not words.stream.reset


def test_tables_and_options_given_twice_are_refused(folder):
    for name, content in (("t.csv", "name,sex\nemma,F\n"), ("t.TSV", "name\tsex\nemma\tF\n")):
        (folder / name).write_text(content)
        for command in (["info", "--data", name], ["prepare", name]):
            assert f"{name}: this is a table" in run(*command, code=1).stderr
    (folder / "one.csv").write_text("emma\nava\n")
    assert sum(load("one.csv").sizes.values()) == 9
    for twice in (["--data", "one.csv"], ["--split", "lines", "--split", "1,1,rest"]):
        for command in ("info", "train"):
            result = run(command, "--data", "x.txt", *twice, code=2)
            assert "is given 2 times" in result.stderr


def test_a_data_file_that_is_gone_is_named(folder):
    run("train", "--data", "x.txt", "--out", "run", *SMALL)
    (folder / "x.txt").rename("y.txt")
    for command in (["eval", "run"], ["train", "--resume", "--out", "run"]):
        error = run(*command, code=1).stderr
        assert "x.txt cannot be read (No such file or directory): put it back" in error
    with pytest.raises(FileNotFoundError, match=r"Trainer.resume\(run, data\)"):
        Trainer.resume("run")
    assert Trainer.resume("run", load("y.txt", 3)).step == 10


# --- token files ----------------------------------------------------------------------------------


def token_run(folder):
    prepare("x.txt", "x.tokens")
    data = load("x.tokens", 3, DataConfig(split="30,8,rest"))
    model = MLP(MLPConfig(len(data.vocabulary), 3, 2, 4))
    trainer = Trainer(model, data, TrainConfig(steps=4, batch_size=4))
    trainer.save("run")
    trainer.fit()
    return folder / "x.tokens", trainer


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_changed_token_file_is_noticed(folder, keep_time):
    path, trainer = token_run(folder)
    run("eval", "run")
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write((2).to_bytes(4, "little"))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for command in (["eval", "run"], ["train", "--resume", "--out", "run"]):
        assert "x.tokens: the token file has been changed" in run(*command, code=1).stderr
    with pytest.raises(ValueError, match="has been changed since it was prepared"):
        Trainer.resume("run", trainer.data)


def test_a_token_file_is_hashed_once_for_each_state(folder, monkeypatch):
    _, trainer = token_run(folder)
    trainer.data.stream.check_digest()
    stream = type(trainer.data.stream)
    monkeypatch.setattr(stream, "_computed_digest", lambda _: pytest.fail("hashed again"))
    assert Trainer.resume("run").step == 4


def test_a_token_file_that_was_cut_is_an_error_not_a_signal(folder):
    path, trainer = token_run(folder)
    os.truncate(path, 100)
    for use in (
        lambda: trainer.evaluate("dev"),
        lambda: Trainer(trainer.model, trainer.data, TrainConfig(steps=2)),
        lambda: trainer.data.train.take(torch.tensor([0])),
        lambda: Trainer.resume("run", trainer.data),
        lambda: KneserNey(2, 20).fit(trainer.data.train),
    ):
        with pytest.raises(ValueError, match=r"x.tokens: the token file had \d+ bytes .* 100 now"):
            use()


def damaged(content, **changes):
    """A token file whose header says something else."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    fields = json.loads(header["__metadata__"]["pymlp.tokens"])
    for name, value in changes.items():
        (header["ids"] if name in header["ids"] else fields)[name] = value
    header["__metadata__"]["pymlp.tokens"] = json.dumps(fields)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


@pytest.mark.parametrize(
    "changes",
    [
        {"n_lines": 10**8},
        {"n_lines": 9},
        {"n_lines": -1},
        {"n_lines": "10"},
        {"n_lines": True},
        {"n_empty": -1},
        {"shape": [10**12], "data_offsets": [0, 4 * 10**12]},
        {"shape": []},
        {"shape": None},
        {"shape": [5.0]},
        {"dtype": "F32"},
        {"data_offsets": [4, 8]},
        {"version": [1]},
        {"sha256": None},
        {"vocabulary": None},
        {"vocabulary": {"tokens": [".", 1]}},
        {"vocabulary": {"tokens": [".", "a"], "lowercase": "no"}},
        {"vocabulary": {"tokens": [".", "a"], "more": 1}},
        {"vocabulary": json.loads('{"tokens": ' + "[" * 500 + "]" * 500 + "}")},
    ],
)
@pytest.mark.parametrize("piped", [False, True])
def test_whatever_a_header_says_is_checked(folder, changes, piped):
    prepare("x.txt", "x.tokens")
    content = damaged((folder / "x.tokens").read_bytes(), **changes)
    (folder / "bad.tokens").write_bytes(content)
    path = fifo(folder, content) if piped else folder / "bad.tokens"
    with pytest.raises(ValueError, match=rf"{path.name}.*(damaged|version|not a token file)"):
        load(path, 3)


def test_a_header_that_nests_or_claims_too_much_is_an_error(folder):
    deep = b"{" + b'"a":[' * 100_000
    for content in (len(deep).to_bytes(8, "little") + deep, b"\xff\xff\xff\xff\0\0\0\0{"):
        (folder / "bad.tokens").write_bytes(content)
        for path in (folder / "bad.tokens", fifo(folder, content)):
            with pytest.raises(ValueError, match=r"not a token file|cut short"):
                open_token_file(path)
        (folder / "pipe").unlink()


# --- ARPA files -----------------------------------------------------------------------------------

KEPT = [
    *("<unk>", "<S>", "\\data\\", "\\end\\", "\\1-grams:", "ngram", "#", "-99", "nan", "|||"),
    *("\ufeff", "\u200b", "a\u0301", "😀", "\x01", "\x7f", "\x1a", "\U0010ffff"),
]
REFUSED = [
    *("<s>", "</s>", "<UNK>", "", " ", "\t", "\r", "\x1c", "\x85", "\xa0", "\u2028", "a b"),
    *("a\0b", "\ud800", "b"),
]


def test_odd_tokens_are_refused_or_read_back_the_same(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    generator = random.Random(7)
    for odd in [*KEPT, *REFUSED]:
        spellings = ["", odd, "b", "c", "d"]
        model = KneserNey(3, 5).fit([*generator.choices(range(5), k=300), 0])
        if odd in REFUSED:
            with pytest.raises(ValueError, match="cannot be a token of an ARPA file"):
                model.write_arpa(tmp_path / "x.arpa", spellings)
            continue
        model.write_arpa(tmp_path / "x.arpa", spellings)
        peer = kenlm.Model(str(tmp_path / "x.arpa"))
        line = generator.choices(range(1, 5), k=20)
        found = model.log_probs([*line, 0]).sum() / np.log(10)
        assert found == pytest.approx(peer.score(" ".join(spellings[i] for i in line)), rel=2e-6)
    with pytest.raises(TypeError, match="tokens must be of type str, got b'a'"):
        model.write_arpa(tmp_path / "x.arpa", ["", b"a", "b", "c", "d"])


def test_a_packed_token_file_is_not_learned_as_text(folder):
    prepare("x.txt", "x.tokens")
    packed = gzip.compress((folder / "x.tokens").read_bytes())
    (folder / "x.tokens.gz").write_bytes(packed)
    message = "x.tokens.gz: this is a token file that gzip has packed: unpack it first"
    assert message in run("train", "--data", "x.tokens.gz", *SMALL, code=1).stderr
    assert message in run("prepare", "x.tokens.gz", code=1).stderr
    piped = run("info", "--data", "-", stdin=packed, code=1).stderr
    assert "standard input: this is a token file that gzip has packed" in piped


def test_a_run_whose_data_are_elsewhere_is_used_with_data(folder):
    run("train", "--data", "-", *SMALL, "--tokens", "word", "--out", "piped", stdin=TEXT)
    advice = "give it with --data FILE"
    assert advice in run("eval", "piped", code=1).stderr
    assert advice in run("sample", "piped").stderr
    assert advice in run("train", "--resume", "--out", "piped", "--steps", 12, code=1).stderr
    loss = json.loads(run("eval", "piped", "--data", "x.txt", "--json").stdout)["loss"]
    piped = run("eval", "piped", "--data", "-", "--json", stdin=TEXT).stdout
    assert json.loads(piped)["loss"] == loss
    assert "cannot be said" not in run("sample", "piped", "--data", "x.txt").stderr
    resumed = run("train", "--resume", "--out", "piped", "--steps", 12, "--data", "x.txt", "--json")
    assert json.loads(resumed.stdout)["step"] == 12
    (folder / "other.txt").write_bytes(TEXT[::-1])
    for command in (["eval", "piped"], ["train", "--resume", "--out", "piped"]):
        message = run(*command, "--data", "other.txt", code=1).stderr
        assert "other.txt: these are not the lines that the run was trained on" in message


def test_files_of_splits_that_have_moved_are_given_with_data(folder):
    (folder / "dev.txt").write_bytes(b"mia\nzoe")
    run("train", "--data", "x.txt", "--dev", "dev.txt", *SMALL, "--out", "split")
    os.rename("x.txt", "moved.txt")
    assert "give it with --data FILE" in run("eval", "split", code=1).stderr
    assert "need --data" in run("eval", "split", "--dev", "dev.txt", code=2).stderr
    run("eval", "split", "--data", "moved.txt", "--dev", "dev.txt")
