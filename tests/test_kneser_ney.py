"""Kneser-Ney against the formulas written once more, sums, literals, and KenLM where it is."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from pymlp import _engine
from pymlp.ngram import KneserNey

BOTH = pytest.mark.parametrize("reset", [True, False])


def text(n_tokens, vocab_size, seed):
    """Ids from 0 up, the smaller the more frequent, with empty lines; the largest never occurs."""
    generator = random.Random(seed)
    return [min(int(generator.expovariate(0.4)), vocab_size - 2) for _ in range(n_tokens)]


class Formulas:
    """Chen and Goodman's definition, with nothing shared and nothing fast."""

    def __init__(self, ids, order, vocab_size, reset):
        self.order, self.vocab_size, self.reset = order, vocab_size, reset
        self.occurrences = [Counter() for _ in range(order + 1)]
        for i, token in enumerate(ids):
            context = self.context(ids[:i])
            for n in range(1, len(context) + 2):
                self.occurrences[n][(*context[len(context) - n + 1 :], token)] += 1
        self.discounts = [None, *(self.discounts_of(n) for n in range(1, order + 1))]

    def context(self, before):
        """The last n - 1 tokens, or fewer: from the last boundary on."""
        padded = [0] * (self.order - 1) + list(before)
        context = padded[len(padded) - self.order + 1 :]
        if self.reset and 0 in context:
            context = context[len(context) - 1 - context[::-1].index(0) :]
        return tuple(context)

    def adjusted(self, ngram):
        n = len(ngram)
        if n == self.order or (self.reset and n > 1 and ngram[0] == 0):
            return self.occurrences[n][ngram]
        return len({longer[0] for longer in self.occurrences[n + 1] if longer[1:] == ngram})

    def discounts_of(self, n):
        t = Counter(self.adjusted(ngram) for ngram in self.occurrences[n])
        if not t[1] * t[2] * t[3]:
            return 0.0, 0.5, 1.0, 1.5
        y = t[1] / (t[1] + 2 * t[2])
        d = [j - (j + 1) * y * t[j + 1] / t[j] for j in (1, 2, 3)]
        return (0.0, *d) if all(0 < d[j - 1] <= j for j in (1, 2, 3)) else (0.0, 0.5, 1.0, 1.5)

    def prob(self, context, token):
        counts = [self.adjusted((*context, w)) for w in range(self.vocab_size)]
        d = self.discounts[len(context) + 1]
        lower = self.prob(context[1:], token) if context else 1 / self.vocab_size
        if sum(counts) == 0:
            return lower
        gamma = sum(d[min(count, 3)] for count in counts) / sum(counts)
        return (counts[token] - d[min(counts[token], 3)]) / sum(counts) + gamma * lower


@BOTH
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("n_tokens", [1, 9, 600])
def test_probabilities_are_those_of_the_formulas(order, n_tokens, reset):
    vocab_size = 9
    ids = text(n_tokens, vocab_size, seed=order)
    formulas = Formulas(ids, order, vocab_size, reset)
    model = KneserNey(order, vocab_size, reset).fit(ids)
    np.testing.assert_allclose(model.discounts, [d[1:] for d in formulas.discounts[1:]], rtol=1e-13)
    unseen = [1, 7, 8, 0, 0, 3, 8, 8, 1, 2, 0, 1, 6, 5, 0]
    expected = [formulas.prob(formulas.context(unseen[:i]), w) for i, w in enumerate(unseen)]
    np.testing.assert_allclose(np.exp(model.log_probs(unseen)), expected, rtol=1e-12)


def test_the_long_text_has_discounts_of_its_own_and_the_short_one_the_fallback():
    assert KneserNey(3, 9).fit(text(9, 9, seed=3)).discounts[2] == (0.5, 1.0, 1.5)
    assert KneserNey(3, 9).fit(text(600, 9, seed=3)).discounts[2] != (0.5, 1.0, 1.5)


@BOTH
@pytest.mark.parametrize("order", [1, 2, 5])
def test_probabilities_sum_to_one_after_every_context(order, reset):
    ids = text(300, 7, seed=1)
    model = KneserNey(order, 7, reset).fit(ids)
    contexts = [[], [0], [0, 0, 0, 0], [6, 6], [1, 6, 1, 1], *(ids[:n] for n in range(1, 40))]
    for context in contexts:
        assert sum(model.prob(context, w) for w in range(7)) == pytest.approx(1, abs=1e-12)


def test_a_vocabulary_of_one_is_certain():
    assert KneserNey(3, 1).fit([0, 0, 0]).perplexity([0, 0]) == pytest.approx(1)


@BOTH
def test_any_part_of_a_stream_has_the_bits_of_the_whole(reset):
    ids = np.array(text(200, 9, seed=5), np.int32)
    model = KneserNey(4, 9, reset).fit(ids)
    whole = model.log_probs(ids)
    for begin, end in pairwise([0, 1, 2, 3, 4, 50, 117, 200]):
        assert model.log_probs(ids, begin, end).tobytes() == whole[begin:end].tobytes()
    assert model.log_probs(ids, 7, 7).size == 0
    assert model.log_probs(ids.astype(np.int64)).tobytes() == whole.tobytes()


def test_with_reset_no_line_depends_on_another():
    model = KneserNey(4, 9, reset=True).fit(text(300, 9, seed=2))
    line = [3, 1, 2, 0]
    alone = model.log_probs(line)
    after = model.log_probs([5, 1, 0, *line], 3)
    assert alone.tobytes() == after.tobytes()
    running = KneserNey(4, 9, reset=False).fit(text(300, 9, seed=2))
    assert (running.log_probs([5, 1, 0, *line], 3) != running.log_probs(line)).any()


def test_errors_say_what_is_wrong():
    model = KneserNey(3, 5)
    with pytest.raises(RuntimeError, match=r"KneserNey: call fit\(ids\)"):
        model.perplexity([1])
    with pytest.raises(ValueError, match="from 0 to 4, got 5 at position 1"):
        model.fit([1, 5])
    with pytest.raises(ValueError, match="from 0 to 4, got -1 at position 0"):
        model.fit([-1, 2**40])
    with pytest.raises(ValueError, match="got 0"):
        model.fit([])
    with pytest.raises(TypeError, match="integers, got float64"):
        model.fit([0.5])
    with pytest.raises(ValueError, match=r"shape \(n,\), got \(1, 2\)"):
        model.fit([[1, 2]])
    with pytest.raises(ValueError, match="order must be at most 16, got 17"):
        KneserNey(17, 5).fit([1])
    model.fit([1, 2, 0])
    with pytest.raises(ValueError, match="positions of the 3 ids, in order, got 2 and 4"):
        model.log_probs([1, 2, 0], 2, 4)
    with pytest.raises(ValueError, match="no positions"):
        model.perplexity([])


# --- ARPA files -----------------------------------------------------------------------------------

SPELLINGS = ["", "a", "ä", "<unk>"]


def test_arpa_file_of_a_small_text(tmp_path):
    path = tmp_path / "model.arpa"
    KneserNey(3, 4).fit([1, 2, 0, 1, 0]).write_arpa(path, SPELLINGS)
    head, unigrams, bigrams, trigrams, end = path.read_text(encoding="utf-8").split("\n\n")
    assert head == "\\data\\\nngram 1=5\nngram 2=4\nngram 3=3"
    lines = [line.split("\t") for line in unigrams.splitlines()[1:]]
    assert [line[1] for line in lines] == ["<s>", "</s>", "a", "ä", "<unk>"]
    assert lines[0][0] == "-99.0000000"
    assert sum(10 ** float(line[0]) for line in lines[1:]) == pytest.approx(1, abs=1e-6)
    words = [line.split("\t")[1] for line in bigrams.splitlines()[1:]]
    assert words == ["<s> a", "a ä", "ä </s>", "a </s>"]
    columns = [line.split("\t") for line in trigrams.splitlines()[1:]]
    assert [column[1] for column in columns] == ["<s> a ä", "a ä </s>", "<s> a </s>"]
    assert {len(column) for column in columns} == {2}
    assert end == "\\end\\\n"
    assert [file.name for file in tmp_path.iterdir()] == ["model.arpa"]


@pytest.mark.parametrize("wrong", ["<s>", "</s>", "a", "b c", ""])
def test_arpa_files_take_only_spellings_that_can_be_read(tmp_path, wrong):
    model = KneserNey(2, 4).fit([1, 2, 0])
    with pytest.raises(ValueError, match=f"{wrong!r} cannot be a token"):
        model.write_arpa(tmp_path / "x", ["", "a", "b", wrong])
    with pytest.raises(ValueError, match="expected 4 tokens, got 2"):
        model.write_arpa(tmp_path / "x", ["", "a"])
    with pytest.raises(ValueError, match="reset=True"):
        KneserNey(2, 4, reset=False).fit([1]).write_arpa(tmp_path / "x", SPELLINGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", [2, 3, 5])
def test_kenlm_scores_the_arpa_file_as_the_model_does(tmp_path, order):
    kenlm = pytest.importorskip("kenlm")
    vocab_size = 40
    spellings = ["", "<unk>", *(f"w{i}" for i in range(2, vocab_size))]
    model = KneserNey(order, vocab_size).fit(text(3000, vocab_size, seed=order))
    path = tmp_path / "model.arpa"
    model.write_arpa(path, spellings)
    peer = kenlm.Model(str(path))
    generator = random.Random(1)
    for length in [0, 1, 2, *range(3, 40)]:
        line = [generator.randrange(1, vocab_size) for _ in range(length)]
        found = model.log_probs([*line, 0]).sum() / np.log(10)
        assert found == pytest.approx(peer.score(" ".join(spellings[i] for i in line)), rel=2e-6)


def test_nothing_is_no_counts():
    with pytest.raises(TypeError):
        _engine.KneserNey(None)
