"""Sampling: against the lecture's loop and against distributions that are known."""

import math
from collections import Counter

import pytest
import torch

from pymlp import reference, sampling
from pymlp.data import Dataset, Splits, Vocabulary, names
from pymlp.model import MLP, MLPConfig, lecture_init
from pymlp.sampling import membership, sample

VOCABULARY = Vocabulary((".", "a", "b", "c"))

# Row i: what follows token i. A line never starts with its end, and c ends every line.
FOLLOWS = torch.tensor(
    [[0.0, 0.5, 0.3, 0.2], [0.1, 0.2, 0.6, 0.1], [0.3, 0.3, 0.3, 0.1], [1.0, 0.0, 0.0, 0.0]]
)


@pytest.fixture(autouse=True)
def one_thread(set_num_threads):
    """These models are far too small to share; beside other processes, waiting would cost more."""
    set_num_threads(1)


@torch.no_grad()
def bigram_model(follows=FOLLOWS, kind=MLP):
    """A model whose hidden layer is the one-hot last token; its logits are rows of a table."""
    size = len(follows)
    model = kind(MLPConfig(size, block_size=3, n_embd=size, n_hidden=size))
    model.embedding.weight.copy_(torch.eye(size))
    model.hidden.weight.zero_()
    model.hidden.weight[:, -size:] = 100 * torch.eye(size)  # tanh(100) = 1
    model.hidden.bias.zero_()
    model.output.weight.copy_(follows.log().clamp_min(-1e4).T)
    model.output.bias.zero_()
    return model


def untrained(kind=MLP):
    vocabulary = Vocabulary.characters(names())
    model = kind(MLPConfig(len(vocabulary), n_embd=4, n_hidden=16))
    lecture_init(model)
    return model, vocabulary


def test_native_samples_do_not_depend_on_the_number_or_the_threads(set_num_threads):
    model, vocabulary = untrained()
    few = sample(model, vocabulary, 5)
    for threads in (1, 2, 3):
        set_num_threads(threads)
        assert sample(model, vocabulary, 9000)[:5] == few
        assert sample(model, vocabulary, 5, seed=1) != few


def test_a_text_is_drawn_line_after_line():
    model, vocabulary = untrained()
    generator = torch.Generator().manual_seed(sampling.SAMPLE_SEED)
    context, expected = [0, 0, 0], []
    for _ in range(6):
        line = vocabulary.encode("a")
        context = [*context[1:], *line]
        while len(line) < 5:
            probabilities = model(torch.tensor([context])).softmax(1)
            token = torch.multinomial(probabilities, 1, generator=generator).item()
            if token == 0:
                break
            line.append(token)
            context = [*context[1:], token]
        context = [*context[1:], 0]
        expected.append(vocabulary.decode(line))
    assert sample(model, vocabulary, 6, prefix="a", max_length=5, across=True) == expected


def philox(counter, key):
    """Philox 4x32-10 of Salmon et al. (2011)."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [q >> 32 ^ c[1] ^ k[0], q & 0xFFFFFFFF, p >> 32 ^ c[3] ^ k[1], p & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def test_native_samples_are_drawn_as_the_numbers_say():
    """Line i: its tokens are where Philox's numbers for (seed, i, position) fall."""
    model, vocabulary = untrained()
    model, seed, start = model.double(), 2**40 + 11, vocabulary.encode("an")
    options = {"temperature": 0.7, "top_k": 5, "max_length": 8, "prefix": "an"}
    lines = sample(model, vocabulary, 60, seed=seed, **options)
    for number, line in enumerate(lines):
        tokens = vocabulary.encode(line)
        assert tokens[:2] == start
        context = [0, *start]
        for position, token in enumerate([*tokens, 0][:8][2:], 2):
            logits = model(torch.tensor([context]))[0] / 0.7
            probabilities = logits.where(logits >= logits.topk(5).values[-1], -math.inf).softmax(0)
            first, second, *_ = philox([number, 0, position, 0], [seed % 2**32, seed >> 32])
            u = ((first << 32 | second) >> 11) * 2.0**-53
            assert token == int((probabilities.cumsum(0) <= u).sum())
            context = [*context[1:], token]


def test_the_first_of_equals_are_kept():
    model = bigram_model(torch.full((4, 4), 0.25))
    lines = sample(model, VOCABULARY, 100, top_k=2, max_length=5)
    assert set("".join(lines)) == {"a"}  # and the end
    assert sample(model, VOCABULARY, 2, temperature=0) == ["", ""]


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"top_k": 2}])
@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_a_model_that_has_diverged_is_named(options, value):
    model, vocabulary = untrained()
    with torch.no_grad():
        model.output.weight.fill_(value)
    with pytest.raises(ValueError, match="logits are not finite"):
        sample(model, vocabulary, 5, **options)


def assert_frequencies(counts, probabilities):
    """Within four standard deviations of what `probabilities` let expect."""
    total = sum(counts.values())
    assert set(counts) <= {token for token, p in probabilities.items() if p > 0}
    for token, p in probabilities.items():
        assert counts[token] / total == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / total))


def following(lines, token):
    """What comes after ``token`` in the lines, ends included."""
    return Counter(
        b for line in lines for a, b in zip(line, line[1:] + ".", strict=True) if a == token
    )


def test_frequencies():
    lines = sample(bigram_model(), VOCABULARY, 20_000)
    assert_frequencies(Counter(line[0] for line in lines), {"a": 0.5, "b": 0.3, "c": 0.2})
    assert_frequencies(following(lines, "a"), {".": 0.1, "a": 0.2, "b": 0.6, "c": 0.1})
    assert_frequencies(following(lines, "c"), {".": 1.0})


def test_temperature():
    lines = sample(bigram_model(), VOCABULARY, 20_000, temperature=0.5)
    squares = {".": 0.01, "a": 0.04, "b": 0.36, "c": 0.01}
    expected = {token: p / sum(squares.values()) for token, p in squares.items()}
    assert_frequencies(following(lines, "a"), expected)


def test_top_k():
    lines = sample(bigram_model(), VOCABULARY, 20_000, top_k=2)
    assert_frequencies(Counter(line[0] for line in lines), {"a": 0.5 / 0.8, "b": 0.3 / 0.8})
    assert_frequencies(Counter(line[1] for line in lines if line[0] == "a"), {"a": 0.25, "b": 0.75})
    assert sample(bigram_model(), VOCABULARY, 50, top_k=99) == sample(
        bigram_model(), VOCABULARY, 50
    )


def test_greedy():
    model = bigram_model(FOLLOWS[[1, 1, 3, 0]])  # likeliest: b at the start, after b the end
    for temperature in (0, 1e-300, 1e-45, 1e-20):
        assert sample(model, VOCABULARY, 3, temperature=temperature) == ["b"] * 3
    model, vocabulary = untrained()
    greedy = sample(model, vocabulary, 2, temperature=0, max_length=12)
    assert greedy == sample(model, vocabulary, 2, top_k=1, max_length=12, seed=5)
    assert greedy[0] == greedy[1]


@pytest.mark.parametrize("seed", [2147483657, 1, 2, 3])
def test_one_line_is_the_lectures(seed):
    model, vocabulary = untrained()
    generator = torch.Generator().manual_seed(seed)
    out, context = [], [0] * 3
    while True:
        probs = torch.softmax(model(torch.tensor([context])), dim=1)
        ix = torch.multinomial(probs, num_samples=1, generator=generator).item()
        context = [*context[1:], ix]
        if ix == 0:
            break
        out.append(ix)
    assert sample(model, vocabulary, 1, seed=seed, max_length=1000) == [vocabulary.decode(out)]


def test_plain_and_fused_models_agree():
    (fused, vocabulary), (plain, _) = untrained(), untrained(reference.MLP)
    assert sample(fused, vocabulary, 20) == sample(plain, vocabulary, 20)


def test_prefix():
    lines = sample(bigram_model(), VOCABULARY, 5_000, prefix="ba")
    assert all(line.startswith("ba") for line in lines)
    assert_frequencies(
        Counter(line[2:3] or "." for line in lines), {".": 0.1, "a": 0.2, "b": 0.6, "c": 0.1}
    )
    assert sample(bigram_model(), VOCABULARY, 2, prefix="abbac") == ["abbac"] * 2


def test_lengths():
    lines = sample(bigram_model(), VOCABULARY, 1_000, max_length=4)
    assert max(map(len, lines)) == 4
    assert sample(bigram_model(), VOCABULARY, 2, prefix="ab", max_length=2) == ["ab", "ab"]
    assert sample(bigram_model(), VOCABULARY, 0) == []


def test_many_lines_in_several_goes(monkeypatch):
    monkeypatch.setattr(sampling, "_MAX_PROBABILITIES", 4 * 300)
    lines = sample(bigram_model(), VOCABULARY, 5_000)
    assert len(lines) == 5_000
    assert_frequencies(Counter(line[0] for line in lines), {"a": 0.5, "b": 0.3, "c": 0.2})


def test_seed_and_global_generator():
    first = sample(bigram_model(), VOCABULARY, 50, seed=1)
    assert first == sample(bigram_model(), VOCABULARY, 50, seed=1)
    assert first != sample(bigram_model(), VOCABULARY, 50, seed=2)
    model = bigram_model()
    before = torch.get_rng_state()
    sample(model, VOCABULARY, 5)
    assert torch.equal(before, torch.get_rng_state())


def test_words():
    words = Vocabulary(("</s>", "go", "home", "now"), separator=" ")
    follows = torch.zeros(4, 4)
    follows[0, 1] = follows[1, 2] = follows[2, 3] = follows[3, 0] = 1.0
    assert sample(bigram_model(follows), words, 1) == ["go home now"]
    assert sample(bigram_model(follows), words, 1, prefix="home") == ["home now"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must be finite and at least 0, got -1"),
        ({"temperature": math.nan}, "temperature must be finite and at least 0, got nan"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"prefix": "abx"}, "prefix 'abx': character 'x' .* is not in the vocabulary"),
        ({"prefix": "a."}, r"prefix 'a\.': character '\.'"),
        ({"prefix": "abc", "max_length": 2}, "prefix has 3 tokens, more than max_length=2"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=f"sample: {message}"):
        sample(bigram_model(), VOCABULARY, 1, **options)


def test_errors_of_n_and_vocabulary():
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        sample(bigram_model(), VOCABULARY, -1)
    with pytest.raises(ValueError, match="vocabulary has 2 tokens, the model 4"):
        sample(bigram_model(), Vocabulary((".", "a")), 1)


def test_membership():
    splits = Splits(train=["ann", "bob"], dev=["bob", "cyd"], test=["dan", "ann", ""])
    names = Dataset.from_splits(splits, Vocabulary.characters(["abcdnyo"]))
    found = membership(["dan", "bob", "eve", "an", "", "cyd", "ann"], names)
    assert found == ["test", "train", "new", "new", "test", "dev", "train"]
    lines = [["go", "home"], ["stay", "go"]]
    vocabulary = Vocabulary.words(lines, vocab_size=4)  # go, home
    words = Dataset.from_splits(Splits(lines[:1], [], lines[1:]), vocabulary)
    found = membership(["go home", "gohome", "stay go", "run go"], words)
    assert found == ["train", "new", "test", "test"]
