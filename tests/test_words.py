"""Word data: reading text, vocabularies by count, splits by tokens, token files, bad input."""

import gzip
import random

import numpy as np
import pytest
import torch
from safetensors import safe_open

import pymlp
from pymlp import MLP, MLPConfig, TrainConfig, Trainer, _engine
from pymlp.data import (
    DataConfig,
    Dataset,
    Vocabulary,
    load,
    names,
    open_token_file,
    prepare,
    read_lines,
    read_words,
)

TEXT = "The cat sat .\n\nthe  cat\tran\r\n \n a dog\u3000sat </s> .\nthe end"
WORDS = [
    ["The", "cat", "sat", "."],
    ["the", "cat", "ran"],
    ["a", "dog", "sat", "</s>", "."],
    ["the", "end"],
]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(blocks, words=True):
    """The lines that a reader finds in a text that comes in blocks."""
    reader = _engine.TextReader(words)
    numbers = np.concatenate([*(reader.feed(block) for block in blocks), reader.finish()])
    spellings, lines = reader.spellings(), [[]]
    for number in numbers.tolist():
        lines[-1].append(spellings[number - 1]) if number else lines.append([])
    assert not lines.pop()  # the last line is ended
    assert len(lines) == reader.n_lines
    return lines, reader.n_empty


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_text_reads_the_same_in_blocks_of_any_size(size):
    text = f"\ufeff{TEXT}\r\n\rß\0 x😀\r"
    content = text.encode()
    blocks = [content[at : at + size] for at in range(0, len(content), size)]
    expected = [*WORDS, ["ß\0", "x😀"]]
    assert read(blocks) == (expected, 2)
    found, n_empty = read(blocks, words=False)
    lines = [line for line in text[1:].replace("\r\n", "\n").split("\n") if line]
    assert (["".join(line) for line in found], n_empty) == (lines, 1)


def test_white_space_is_what_str_split_takes():
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF and c != 0x0A]
    text = "".join(f"a{c}b " for c in characters)
    assert read([text.encode()]) == ([text.split()], 0)


def test_words_of_any_length():
    words = ["x" * 10_000_000, *("y" * n for n in range(1, 40)), "x" * 9_999_999 + "z"]
    content = " ".join(words * 2).encode()
    blocks = [content[at : at + 2**20] for at in range(0, len(content), 2**20)]
    assert read(blocks) == ([words * 2], 0)


def test_a_line_of_a_million_words_and_as_many_different_ones(tmp_path):
    text = " ".join(map(str, range(1_000_000)))
    path = write(tmp_path / "x.txt", text)
    data = load(path, 2, DataConfig("word", split="999990,10,0"))
    assert len(data.vocabulary) == 1_000_001
    assert data.sizes == {"train": 999_990, "dev": 11, "test": 0}
    assert data.lines.dev == [list(map(str, range(999_990, 1_000_000)))]


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("size", [1, 1000])
def test_invalid_utf8_is_named_by_line_and_byte(tmp_path, words, size):
    for bad in (b"\xeb", b"\xc3", b"\xf0\x9f\x98", b"\xed\xa0\x80"):
        content = b"\xef\xbb\xbfemma\r\n\nzo" + bad + b"\n"
        with pytest.raises(ValueError, match=rf"line 3, byte 12 of the file is 0x{bad[0]:02x}"):
            read([content[at : at + size] for at in range(0, len(content), size)], words)
    path = write(tmp_path / "latin1.txt", b"ok\n\xe4")
    with pytest.raises(ValueError, match=r"latin1.txt: not UTF-8 text: line 2, byte 3 .* 0xe4"):
        load(path, 3, DataConfig("word" if words else "char"))


def test_gzip_is_unpacked_and_damage_is_named(tmp_path):
    packed = gzip.compress(TEXT.encode() * 1000)
    path = write(tmp_path / "x.gz", packed)
    plain = write(tmp_path / "x.txt", TEXT * 1000)
    for config in (DataConfig("word"), DataConfig("char")):
        assert load(path, 3, config).digest == load(plain, 3, config).digest
    assert read_lines(path) == read_lines(plain)
    broken = bytearray(packed)
    broken[len(broken) // 2] ^= 0xFF
    for damaged in (packed[:-9], bytes(broken), packed[:3]):
        write(path, damaged)
        for reader in (load, read_lines):
            with pytest.raises(ValueError, match=r"x.gz: damaged gzip file: .*again"):
                reader(path)


@pytest.mark.parametrize("content", [b"", b"\n\r\n", b"\xef\xbb\xbf", gzip.compress(b"")])
@pytest.mark.parametrize("tokens", ["word", "char"])
def test_an_empty_corpus_is_an_error(tmp_path, content, tokens):
    path = write(tmp_path / "x.txt", content)
    with pytest.raises(ValueError, match=r"x.txt: there are no lines to learn from"):
        load(path, 3, DataConfig(tokens))
    with pytest.raises(ValueError, match=r"x.txt: there are no lines to learn from"):
        prepare(path, tmp_path / "out", tokens=tokens)
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


# --- vocabularies ---------------------------------------------------------------------------------


def vocabulary(**options):
    return Vocabulary.words(WORDS, **options).tokens


def test_vocabularies_by_count_and_by_size():
    every = ("</s>", ".", "</s>", "The", "a", "cat", "dog", "end", "ran", "sat", "the")
    assert vocabulary() == every
    assert vocabulary(min_count=2) == ("</s>", ".", "<unk>", "cat", "sat", "the")
    assert vocabulary(vocab_size=4) == ("</s>", ".", "<unk>", "cat")  # of equals, the first
    assert vocabulary(vocab_size=100, min_count=3) == ("</s>", "<unk>")
    assert vocabulary(min_count=3, lowercase=True) == ("</s>", "<unk>", "the")
    with_mark = Vocabulary.words([["<unk>", "<unk>", "a"]], min_count=1, vocab_size=3)
    assert with_mark.tokens == ("</s>", "<unk>", "a")
    assert with_mark.encode("a <unk> b") == [2, 1, 1]


def test_lower_case_goes_by_the_token():
    line = ["Straße", "STRASSE", "İ", "ΑΣ"]
    words = Vocabulary.words([line], lowercase=True)
    assert words.encode("STRAßE strasse İ Ας") == [words.ids[word.lower()] for word in line]
    assert words.find("STRASSE") == words.ids["strasse"]
    assert words.find("x") is None
    assert Vocabulary.from_json(words.to_json()) == words
    characters = Vocabulary(tuple(".abİß"), lowercase=True)
    assert characters.encode("AİBß") == [1, 3, 2, 4]
    assert pymlp.data.encode(["AB", "b"], characters).tolist() == [1, 2, 0, 2, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_count": 0}, "min_count must be at least 1, got 0"),
        ({"vocab_size": 1}, "vocab_size must be at least 2, for </s> and <unk>, got 1"),
        ({"min_count": 2, "separator": ""}, "words can be left out .* characters cannot"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_counts(["a"], [1], **options)


def test_a_vocabulary_of_one_word_trains(tmp_path):
    path = write(tmp_path / "x.txt", "a a a\n" * 20)
    data = load(path, 2, DataConfig("word"))
    assert data.vocabulary.tokens == ("</s>", "a")
    model = MLP(MLPConfig(2, 2, 3, 8))
    Trainer(model, data, TrainConfig(steps=300, batch_size=16, lr=0.5)).fit()
    # After "a a" a line goes on or ends: ln 2 for two tokens of four.
    assert pymlp.evaluate(model, data.dev) == pytest.approx(np.log(2) / 2, abs=0.05)


# --- loading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [DataConfig("word", min_count=2), DataConfig("char")])
def test_loading_equals_the_same_done_in_python(tmp_path, config):
    of_words = config.tokens == "word"
    generator = random.Random(0)
    lines = [generator.choices("abé😀", k=generator.randint(1, 9)) for _ in range(100)]
    path = write(tmp_path / "x.txt", "\n".join((" " * of_words).join(line) for line in lines))
    found = load(path, 3, config)
    if of_words:
        words = read_words(path)
        expected = Dataset.from_lines(words, 3, vocabulary=Vocabulary.words(words, 2))
    else:
        expected = Dataset.from_lines(read_lines(path), 3)
    assert found.lines == expected.lines
    assert found.digest == expected.digest
    assert found.sizes == expected.sizes


def load_text(tmp_path, **options):
    return load(write(tmp_path / "x.txt", TEXT), 3, DataConfig("word", **options))


def test_consecutive_splits_count_tokens_and_may_cut_lines(tmp_path):
    data = load_text(tmp_path, split="4,4,rest")
    assert data.lines == (WORDS[:1], [*WORDS[1:2], ["a"]], [WORDS[2][1:], WORDS[3]])
    assert data.sizes == {"train": 5, "dev": 5, "test": 8}  # with the line ends
    assert data.stream.reset is False
    # The first context of dev runs on from train.
    spell = data.vocabulary.tokens.__getitem__
    assert [spell(i) for i in data.dev.tokens[0].tolist()] == ["sat", ".", "</s>"]
    assert data.dev.tokens[0, -1] == 0
    exact = load_text(tmp_path, split="4,3,1")
    assert exact.lines == (WORDS[:1], WORDS[1:2], [["a"]])
    assert load_text(tmp_path, split="0,14,0").sizes == {"train": 0, "dev": 18, "test": 0}


def test_contexts_are_reset_where_lines_are_shuffled_or_on_request(tmp_path):
    assert load_text(tmp_path).stream.reset
    assert load_text(tmp_path, split="4,4,rest", context="reset").stream.reset
    assert not load_text(tmp_path, context="across").stream.reset
    path = write(tmp_path / "x.txt", TEXT)
    assert load(path, 3, DataConfig(split="4,4,rest")).stream.reset


def test_a_vocabulary_from_train_leaves_out_what_train_has_not(tmp_path):
    data = load_text(tmp_path, split="4,4,rest", vocab_from="train")
    assert data.vocabulary.tokens == ("</s>", ".", "<unk>", "The", "cat", "sat")
    assert data.lines.dev == [["<unk>", "cat", "<unk>"], ["<unk>"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "10,4,1"}, r"x.txt: the split wants 15 tokens, the text has 14"),
        ({"split": "15,0,rest"}, "the split wants 15 tokens, the text has 14"),
        ({"split": "1,2"}, "split must be 'lines' or numbers .* got '1,2'"),
        ({"split": "1,-2,3"}, "got '1,-2,3'"),
        ({"split": "rest,2,3"}, "got 'rest,2,3'"),
        ({"context": "both"}, "context must be 'reset' or 'across', got 'both'"),
        ({"vocab_from": "dev"}, "vocab_from must be 'all' or 'train', got 'dev'"),
        ({"vocab_size": 1}, "x.txt: Vocabulary: vocab_size must be at least 2"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load_text(tmp_path, **options)
    with pytest.raises(ValueError, match="tokens must be 'char' or 'word', got 'byte'"):
        DataConfig("byte")


def test_a_corpus_shorter_than_the_context_trains(tmp_path):
    path = write(tmp_path / "x.txt", "a b\nb a")
    data = load(path, 50, DataConfig("word", split="2,1,rest"))
    assert data.train.tokens.shape == (3, 50)
    trainer = Trainer(MLP(MLPConfig(3, 50, 2, 4)), data, TrainConfig(steps=3, batch_size=4))
    assert trainer.fit().losses.isfinite().all()


# --- token files ----------------------------------------------------------------------------------


def prepared(tmp_path, tokens="word", **options):
    out = tmp_path / "x.tokens"
    return out, prepare(write(tmp_path / "x.txt", TEXT), out, tokens=tokens, **options)


def test_a_token_file_loads_as_its_text_does(tmp_path):
    out, made = prepared(tmp_path, min_count=2, lowercase=True)
    assert (made.n_tokens, made.n_lines, made.n_empty) == (14, 4, 2)
    for split in ("lines", "4,4,rest"):
        text = load_text(tmp_path, min_count=2, lowercase=True, split=split)
        data = load(out, 3, DataConfig(split=split))
        assert (data.digest, data.lines, data.n_empty) == (text.digest, text.lines, 2)
        assert data.stream.reset == text.stream.reset
    prepare(tmp_path / "x.txt", out)  # characters, as wherever nothing is said
    assert load(out).digest == load(tmp_path / "x.txt").digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.tokens", "x.txt"]


def test_a_token_file_is_mapped_into_memory_and_readable_by_others(tmp_path):
    out, _ = prepared(tmp_path)
    data = load(out, 3, DataConfig(split="4,4,rest"))
    ids = data.stream.ids
    with safe_open(out, framework="pt") as file:
        assert torch.equal(file.get_tensor("ids"), ids)
    content = bytearray(out.read_bytes())
    content[-4:] = (3).to_bytes(4, "little")
    with open(out, "r+b") as file:  # the same file, changed in place
        file.write(content)
    assert ids[-1] == 3
    ids[0] = 4  # a private copy of the page
    assert out.read_bytes() == content


def test_ids_outside_the_vocabulary_of_a_token_file_end_the_run(tmp_path):
    out, _ = prepared(tmp_path)
    content = bytearray(out.read_bytes())
    content[-8:-4] = (99).to_bytes(4, "little")
    out.write_bytes(content)
    data = load(out, 3, DataConfig(split="10,1,rest"))
    model = MLP(MLPConfig(len(data.vocabulary), 3))
    with pytest.raises(IndexError, match="from 0 to 10, got 99"):
        pymlp.evaluate(model, data.test)


def test_damaged_and_foreign_token_files_are_errors(tmp_path):
    out, _ = prepared(tmp_path)
    content = out.read_bytes()
    for size, message in [
        (len(content) - 1, r"token file is damaged: it should have \d+ bytes, it has \d+"),
        (100, "cut short: it ends within its header"),
        (9, "cut short"),
    ]:
        out.write_bytes(content[:size])
        with pytest.raises(ValueError, match=rf"x.tokens: .*{message}"):
            load(out)
    out.write_bytes(content.replace(b'\\"version\\": 1', b'\\"version\\": 2'))
    with pytest.raises(ValueError, match=r"x.tokens is a token file of version 2"):
        load(out)
    from safetensors.torch import save_file

    save_file({"ids": torch.zeros(3, dtype=torch.int32)}, out)
    with pytest.raises(ValueError, match=r"x.tokens: not a token file of pymlp"):
        load(out)
    with pytest.raises(ValueError, match=r"x.txt: not a token file of pymlp"):
        open_token_file(tmp_path / "x.txt")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(min_count=2), "min_count is for texts, this is a token file"),
        (DataConfig(vocab_from="train"), "vocab_from is for texts"),
        (DataConfig("char"), "holds tokens of kind 'word', not 'char'"),
    ],
)
def test_a_token_file_has_decided_its_vocabulary(tmp_path, config, message):
    out, _ = prepared(tmp_path)
    with pytest.raises(ValueError, match=rf"x.tokens: .*{message}"):
        load(out, 3, config)


def test_preparing_leaves_nothing_behind_when_it_fails(tmp_path):
    path = write(tmp_path / "x.txt", b"fine\n" * 10 + b"\xff")
    out = write(tmp_path / "x.tokens", b"as it was")
    with pytest.raises(ValueError, match="line 11, byte 50"):
        prepare(path, out)
    assert out.read_bytes() == b"as it was"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_text_is_not_replaced_by_its_token_file(tmp_path):
    path = write(tmp_path / "x.txt", TEXT)
    (tmp_path / "same.txt").hardlink_to(path)
    for out in ("x.txt", "same.txt"):
        with pytest.raises(ValueError, match=rf"{out}: the token file would replace its text"):
            prepare(path, tmp_path / out)
    assert path.read_bytes() == TEXT.encode()
    prepare(path, tmp_path / "x.tokens")
    with pytest.raises(ValueError, match=r"x.tokens is a token file"):
        prepare(tmp_path / "x.tokens", tmp_path / "y")
    with pytest.raises(FileNotFoundError, match=r"there is no directory .*nowhere"):
        prepare(path, tmp_path / "nowhere" / "y")


# --- what is trained on them ----------------------------------------------------------------------


@pytest.mark.parametrize("as_file", [False, True])
def test_a_run_finds_its_data_again(tmp_path, monkeypatch, as_file):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.txt", (TEXT + "\n") * 20)
    config = DataConfig("word", min_count=2, split="200,40,rest", context="reset")
    source = "x.txt"
    if as_file:
        prepare("x.txt", "x.tokens", tokens="word", min_count=2)
        source, config = "x.tokens", DataConfig(split="200,40,rest", context="reset")
    data = load(source, 3, config)
    model = MLP(MLPConfig(len(data.vocabulary), 3, 4, 8))
    trainer = Trainer(model, data, TrainConfig(steps=20, batch_size=4, lr=0.1))
    trainer.save(tmp_path / "run")
    trainer.fit()
    monkeypatch.chdir("/")
    resumed = Trainer.resume(tmp_path / "run", steps=30)
    assert resumed.data.digest == data.digest
    assert resumed.evaluate("test") == trainer.evaluate("test")
    write(tmp_path / "x.txt", TEXT)
    (tmp_path / "x.tokens").unlink(missing_ok=True)
    with pytest.raises((ValueError, FileNotFoundError), match=source):
        Trainer.resume(tmp_path / "run")


def test_words_are_scored_and_sampled(tmp_path):
    data = load_text(tmp_path, min_count=2, lowercase=True, split="10,2,rest")
    torch.manual_seed(0)
    model = MLP(MLPConfig(len(data.vocabulary), 3, 4, 8))
    scorer = pymlp.Scorer(model, data.vocabulary)
    scores = list(scorer.full_scores("The DOG sat"))
    assert [(s.token, s.oov) for s in scores] == [
        ("the", False), ("dog", True), ("sat", False), ("</s>", False),
    ]  # fmt: skip
    assert scorer.score("The DOG sat") == scorer.score(["the", "<unk>", "sat"])
    state, total = scorer.begin_state(), 0.0
    for word in ("The", "DOG", "sat", None):
        log_prob, state = scorer.base_score(state, word)
        total += log_prob
    assert total == pytest.approx(scorer.score("the dog sat"))
    lines = pymlp.sample(model, data.vocabulary, 5, prefix="The Cat")
    assert all(line.startswith("the cat") for line in lines)


def test_bundled_names_load_as_they_always_did():
    source = pymlp.sources.load(pymlp.sources.BUNDLED)
    assert source.digest == Dataset.from_lines(names()).digest
