"""Reading, splitting, encoding and windows, against literals, the lecture's loop and its file."""

import hashlib
from pathlib import Path

import pytest
import torch

import pymlp.data
from pymlp import _engine, reference
from pymlp.data import (
    Dataset,
    Examples,
    Overlap,
    Vocabulary,
    examples,
    names,
    read_lines,
    read_words,
    split,
)

LECTURE_FILE = Path(__file__).resolve().parents[2] / "shared" / "data" / "names.txt"
NAMES_SHA256 = "36419dc68aabda716268673616475e6ee0c1775110447da7771ed219ddce9a49"


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- reading --------------------------------------------------------------------------------------


def test_read_lines_strips_line_ends_and_counts_empty_lines(tmp_path):
    path = write(tmp_path / "x.txt", b"\xef\xbb\xbfemma\r\n\r\n ava \n\nzo\xc3\xab\xe2\x80\xa8x")
    lines = read_lines(path)
    assert lines == ["emma", " ava ", "zoë\u2028x"]  # blanks and other separators are data
    assert lines.n_empty == 2


@pytest.mark.parametrize(
    ("content", "expected", "n_empty"), [(b"", [], 0), (b"\n", [], 1), (b"a\n\n", ["a"], 1)]
)
def test_read_lines_last_line_end_makes_no_line(tmp_path, content, expected, n_empty):
    lines = read_lines(write(tmp_path / "x.txt", content))
    assert (lines, lines.n_empty) == (expected, n_empty)


def test_read_lines_names_the_place_of_invalid_utf8(tmp_path):
    path = write(tmp_path / "latin1.txt", b"emma\nzo\xeb\n")
    with pytest.raises(ValueError, match=r"latin1.txt: not UTF-8 text: line 2, byte 7 .* 0xeb"):
        read_lines(path)


def test_read_lines_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_lines(tmp_path / "nowhere")


def test_read_words_drops_lines_of_blanks(tmp_path):
    path = write(tmp_path / "x.txt", b"the  cat\n   \nsat .\n")
    assert read_words(path) == [["the", "cat"], ["sat", "."]]


# --- vocabulary -----------------------------------------------------------------------------------


def test_characters_are_sorted_code_points():
    vocabulary = Vocabulary.characters(["zoë", "😀a"])
    assert vocabulary.tokens == (".", "a", "o", "z", "ë", "😀")
    assert vocabulary.encode("ëa😀") == [4, 1, 5]
    assert vocabulary.decode([4, 1, 5, 0]) == "ëa😀."
    assert len(vocabulary) == 6


def test_a_dot_in_the_data_is_not_the_terminator():
    vocabulary = Vocabulary.characters(["a.b"])
    assert vocabulary.encode(".") == [1]
    assert examples(["."], vocabulary, 2).targets.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"character '\.' \(U\+002E\) is not in the vocabulary"):
        Vocabulary.characters(["ab"]).encode(".")


def test_rare_words_become_unknown():
    vocabulary = Vocabulary.words([["b", "a"], ["b", "c", "b"]], min_count=2)
    assert vocabulary.tokens == ("</s>", "<unk>", "b")
    assert vocabulary.encode("b never b") == [2, 1, 2]
    assert vocabulary.decode([2, 1]) == "b <unk>"


def test_vocabulary_survives_json():
    for vocabulary in (Vocabulary.characters(["zoë."]), Vocabulary.words([["a", "b"]], 2)):
        assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"tokens": ["a"]}', '{"tokens": 3}', "3"])
def test_from_json_rejects_what_is_no_vocabulary(text):
    with pytest.raises(ValueError, match="Vocabulary: "):
        Vocabulary.from_json(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens": ("a", "b")}, "must start with the boundary '.'"),
        ({"tokens": (".", "b"), "separator": " "}, "must start with the boundary '</s>'"),
        ({"tokens": (".", "a", "b", "a")}, "token 'a' is listed more than once"),
        ({"tokens": (".", "a", "ab")}, "'ab' is not one character"),
        ({"tokens": (".", "a"), "separator": "-"}, "separator must be '' or ' ', got '-'"),
        ({"tokens": (".", "a"), "unknown": "b"}, "unknown must be one of the words, got 'b'"),
    ],
)
def test_vocabulary_rejects_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(**fields)


@pytest.mark.parametrize("i", [-1, 2])
def test_decode_rejects_ids_out_of_range(i):
    with pytest.raises(ValueError, match=f"id {i} is not in the range 0 to 1"):
        Vocabulary((".", "a")).decode([i])


# --- splitting ------------------------------------------------------------------------------------


def test_split_is_a_seeded_shuffle_cut_twice():
    lines = [str(i) for i in range(10)]
    splits = split(lines)
    assert lines == [str(i) for i in range(10)]
    assert splits.train == ["7", "3", "2", "8", "5", "6", "9", "4"]  # random.Random(42).shuffle
    assert (splits.dev, splits.test) == (["0"], ["1"])
    assert split(lines, seed=1) != splits
    assert split(lines, fractions=(0.0, 1.0)).dev == [*splits.train, "0", "1"]


@pytest.mark.parametrize("fractions", [(0.9, 0.8), (-0.1, 0.5), (0.5, 1.1)])
def test_split_rejects_bad_fractions(fractions):
    with pytest.raises(ValueError, match="fractions must ascend within 0 to 1"):
        split(["a"], fractions=fractions)


# --- examples -------------------------------------------------------------------------------------


def test_examples_by_hand():
    made = examples(["emma", "", "a"], Vocabulary.characters(["emma"]), 3)
    a, e, m = 1, 2, 3
    assert made.tokens.tolist() == [
        [0, 0, 0],
        [0, 0, e],
        [0, e, m],
        [e, m, m],
        [m, m, a],
        [0, 0, 0],
        [0, 0, 0],
        [0, 0, a],
    ]
    assert made.targets.tolist() == [e, m, m, a, 0, 0, a, 0]
    assert made.tokens.dtype == made.targets.dtype == torch.int64


@pytest.mark.parametrize("block_size", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["zoë", "", "x😀y.", "日本語の文章です"], id="characters"),
        pytest.param([["the", "cat", "sat"], ["."], ["the", "end"] * 6], id="words"),
    ],
)
def test_examples_equal_the_lectures_loop(lines, block_size):
    vocabulary = Dataset.from_lines(lines).vocabulary
    made = examples(lines, vocabulary, block_size)
    tokens, targets = reference.examples(lines, vocabulary.ids, block_size)
    assert torch.equal(made.tokens, tokens)
    assert torch.equal(made.targets, targets)


def test_examples_of_no_lines():
    for vocabulary in (Vocabulary((".", "a")), Vocabulary(("</s>", "a"), separator=" ")):
        made = examples([], vocabulary, 3)
        assert (made.tokens.shape, made.targets.shape, len(made)) == ((0, 3), (0,), 0)


def test_examples_of_words_given_as_text():
    vocabulary = Vocabulary.words([["the", "cat"]])
    assert examples(["the  cat"], vocabulary, 1).targets.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["ab", "aéb"], ValueError, r"line 2: character 'é' \(U\+00E9\) is not in the vocabulary"),
        (["", "ab", "😀"], ValueError, r"line 3: character '😀' \(U\+1F600\)"),
        (["ab", "a\nb"], ValueError, "line 2 holds a line break"),
        (["a\ud800"], ValueError, "line 1 holds .* a lone surrogate"),
        ([["a", "b"]], TypeError, "needs lines of type str .*list found"),
        ("ab", TypeError, "must be a list of lines, got one str 'ab'"),
    ],
)
def test_examples_name_what_is_wrong(lines, error, message):
    with pytest.raises(error, match=message):
        examples(lines, Vocabulary.characters(["ab"]), 3)


def test_examples_reject_unknown_words_and_block_sizes():
    vocabulary = Vocabulary.words([["the", "cat"]])
    with pytest.raises(ValueError, match="line 2: word 'dog' is not in the vocabulary of 3 tokens"):
        examples([["the"], ["cat", "dog"]], vocabulary, 3)
    with pytest.raises(ValueError, match="line 1: word 'a dog' is not"):
        examples([["a dog"]], vocabulary, 3)
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        examples([["the"]], vocabulary, 0)


def test_examples_class_rejects_bad_tensors():
    ids = torch.zeros(4, 3, dtype=torch.int64)
    for tokens, targets in [(ids, ids[:3, 0]), (ids[0], ids[0]), (ids, ids[:, 0].float())]:
        with pytest.raises(ValueError, match="Examples: expected"):
            Examples(tokens, targets)


def test_native_arrays_are_handed_over_without_a_copy():
    ids = _engine.encode(b"ab\n\nb", [ord("a"), ord("b")])
    assert ids.tolist() == [1, 2, 0, 0, 2, 0]
    assert not ids.flags.owndata  # the vector's memory, not a copy


# --- data sets ------------------------------------------------------------------------------------


def test_dataset_needs_lines():
    with pytest.raises(ValueError, match="no lines"):
        Dataset.from_lines([])
    with pytest.raises(TypeError, match="list of lines, got one str"):
        Dataset.from_lines("names.txt")


def test_report_counts_repeats_and_leaks():
    splits = pymlp.data.Splits(
        train=["ann", "bob", "ann"], dev=["ann", "eve"], test=["bo", "bob", "bob", "eve"]
    )
    report = pymlp.data.report(splits)
    assert (report.n_lines, report.n_unique, report.n_repeated) == (9, 4, 5)
    assert report.dev == Overlap(lines=1, n_lines=2, positions=4, n_positions=8)
    assert report.test == Overlap(lines=2, n_lines=4, positions=8, n_positions=15)


def test_report_counts_words_as_positions():
    splits = pymlp.data.Splits(train=[["the", "cat"]], dev=[["the", "cat"], ["cat"]], test=[])
    assert pymlp.data.report(splits).dev == Overlap(1, 2, 3, 5)


def test_bundled_names():
    content = Path(pymlp.data.__file__).with_name("names.txt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == NAMES_SHA256
    data = Dataset.from_lines(names())
    assert data.vocabulary.tokens == tuple(".abcdefghijklmnopqrstuvwxyz")
    assert names()[:3] == ["emma", "olivia", "ava"]
    assert [len(data.train), len(data.dev), len(data.test)] == [171_875, 21_481, 21_408]
    report = data.report()
    assert (report.n_repeated, report.dev.lines, report.test.lines) == (0, 0, 0)


@pytest.mark.skipif(not LECTURE_FILE.exists(), reason="the lecture's names.txt is not there")
def test_the_lectures_file():
    data = Dataset.from_lines(read_lines(LECTURE_FILE))
    assert [len(data.train), len(data.dev), len(data.test)] == [182_625, 22_655, 22_866]
    tokens, targets = reference.examples(data.lines.dev, data.vocabulary.ids, 3)
    assert torch.equal(data.dev.tokens, tokens)
    assert torch.equal(data.dev.targets, targets)
    report = data.report()
    assert (report.n_unique, report.n_repeated) == (29_494, 2_539)
    assert report.dev == Overlap(424, 3_203, 2_778, 22_655)
    assert report.test == Overlap(377, 3_204, 2_519, 22_866)


def test_examples_are_moved_to_a_device_once():
    examples = Examples(torch.zeros((4, 2), dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    there = examples.to(torch.device("meta"))
    assert there.tokens.device == there.targets.device == torch.device("meta")
    assert examples.to(torch.device("meta")) is there
    assert examples.to(torch.device("cpu")) is examples
