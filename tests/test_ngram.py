"""Counts, deleted interpolation, and the two bigram models of the lecture before."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pymlp.data import Vocabulary, encode, read_lines
from pymlp.ngram import (
    Bigram,
    Cache,
    DeletedInterpolation,
    NeuralBigram,
    NGramCounts,
    context_bins,
    frequency_bins,
)

LECTURE_FILE = Path(__file__).resolve().parents[2] / "shared" / "data" / "names.txt"


def text(n_tokens, vocab_size, seed):
    generator = np.random.default_rng(seed)
    return np.minimum(generator.geometric(0.3, n_tokens) - 1, vocab_size - 2).astype(np.int32)


# --- counts ---------------------------------------------------------------------------------------


def test_counts_that_run_across_boundaries():
    counts = NGramCounts([1, 2, 0, 1, 2, 0, 0], order=3, vocab_size=4, reset=False)
    found = counts.look_up([1, 2, 0, 0, 1])
    # (1), (0 1), (0 0 1); (2), (1 2), (0 1 2); (0), (2 0), (1 2 0); ...
    assert found.ngrams.tolist() == [[2, 2, 1], [2, 2, 2], [3, 2, 2], [3, 1, 1], [2, 2, 1]]
    assert found.contexts.tolist() == [[7, 3, 1], [7, 2, 2], [7, 2, 2], [7, 3, 2], [7, 3, 1]]
    assert found.follows.tolist() == [[3, 2, 1], [3, 1, 1], [3, 1, 1], [3, 2, 2], [3, 2, 1]]


def test_counts_that_stop_at_boundaries():
    counts = NGramCounts([1, 2, 0, 1, 2, 0, 0], order=3, vocab_size=4, reset=True)
    found = counts.look_up([1, 2, 0, 0, 1, 3, 3])
    first = [2, 2, 2]  # (0 1), before which there is nothing to see
    assert found.ngrams.tolist()[:5] == [first, [2, 2, 2], [3, 2, 2], [3, 1, 1], first]
    assert found.contexts.tolist()[:5] == [[7, 3, 3], [7, 2, 2], [7, 2, 2], [7, 3, 3], [7, 3, 3]]
    assert found.ngrams.tolist()[5:] == [[0, 0, 0], [0, 0, 0]]
    assert found.contexts.tolist()[5:] == [[7, 2, 2], [7, 0, 0]]


def test_counts_of_a_long_text_are_those_of_its_windows():
    ids = text(5000, 30, seed=1)
    order = 5
    counts = NGramCounts(ids, order, 30, reset=False)
    padded = np.concatenate([np.zeros(order - 1, np.int32), ids])
    found = counts.look_up(ids)
    for n in range(1, order + 1):
        windows = np.lib.stride_tricks.sliding_window_view(padded[order - n :], n)
        for column, part in ((found.ngrams, windows), (found.contexts, windows[:, :-1])):
            _, inverse, expected = np.unique(part, axis=0, return_inverse=True, return_counts=True)
            np.testing.assert_array_equal(column[:, n - 1], expected[inverse.reshape(-1)])


# --- bins -----------------------------------------------------------------------------------------


def test_frequency_bins_are_the_papers():
    # 1000 tokens: log(1000) = 6.9, log(1000 / 2) = 6.2, log(1000 / 1001) < 0
    assert frequency_bins([0, 1, 9, 999, 1000], 1000).tolist() == [7, 7, 5, 0, 0]
    for wrong in ([-1], [1001]):
        with pytest.raises(ValueError, match="from 0 to the 1000 tokens"):
            frequency_bins(wrong, 1000)


def test_context_bins_go_by_the_longest_context_its_frequency_and_what_follows_the_last_token():
    ids = [1, 2, 1, 2, 1, 3, 1, 3]
    counts = NGramCounts(ids, order=3, vocab_size=6, reset=False)
    bins = context_bins(counts.look_up([1, 2, 4, 5, 5]))
    # (0 0) once, 0 before 1 alone; (0 1) once, 1 before 2 and 3; (1 2) twice, 2 before 1 alone;
    # (2 4) never, nor (4)
    length_frequency_openness = [(2, 0, 0), (2, 0, 1), (2, 1, 0), (0, 3, 0), (0, 3, 0)]
    assert bins.tolist() == [(6 * n + f) * 16 + o for n, f, o in length_frequency_openness]
    alone = NGramCounts(ids, order=1, vocab_size=6).look_up([1, 2])
    assert context_bins(alone).tolist() == [3 * 16 + 1] * 2  # 8 tokens, 3 of them distinct


# --- deleted interpolation ------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [True, False])
def test_deleted_interpolation_sums_to_one(reset):
    model = DeletedInterpolation(3, 9, reset).fit(text(400, 9, seed=1), text(200, 9, seed=2))
    np.testing.assert_allclose(model.weights.sum(axis=1), 1)
    assert len(model.weights) == 1 + np.ceil(np.log(400))  # the last is of contexts never met
    for context in ([], [0], [0, 0], [8, 8], [1, 8], [8, 1], [1, 2], [2, 0]):
        assert sum(model.prob(context, w) for w in range(9)) == pytest.approx(1, abs=1e-12)


def test_deleted_interpolation_learns_to_trust_what_repeats():
    cycle = np.tile([1, 2, 3, 1, 3, 2], 60)
    model = DeletedInterpolation(3, 4, reset=False).fit(cycle, cycle[:90])
    assert model.perplexity(cycle, 10) == pytest.approx(1, abs=0.02)  # two tokens decide the next
    random = text(360, 4, seed=3)
    assert DeletedInterpolation(3, 4).fit(cycle, random).perplexity(random) < 5


def test_deleted_interpolation_needs_fit():
    with pytest.raises(RuntimeError, match=r"DeletedInterpolation: call fit"):
        DeletedInterpolation(3, 4).perplexity([1])


# --- cache ----------------------------------------------------------------------------------------


def test_cache_counts_the_last_tokens():
    ids = [1, 2, 1, 1, 2, 2]
    expected = [1 / 4, 0, 1 / 2, 2 / 3, 1 / 3, 1 / 3]  # the window is 2, 1, 1 before the fifth
    np.testing.assert_allclose(np.exp(Cache(4, window=3).log_probs(ids)), expected)
    np.testing.assert_allclose(np.exp(Cache(4, window=3).log_probs(ids, 4, 6)), expected[4:])
    assert Cache(4, window=9).prob([1, 2, 1, 3], 1) == pytest.approx(2 / 4)
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        Cache(4, window=0)
    with pytest.raises(ValueError, match="from 0 to 3, got 4 at position 1"):
        Cache(4).log_probs([1, 4])
    with pytest.raises(ValueError, match="positions of the 2 ids, in order, got 1 and 0"):
        Cache(4).log_probs([1, 2], 1, 0)


def test_cache_of_a_long_text_counts_its_windows():
    ids = text(3000, 50, seed=6)
    expected = [np.mean(ids[max(i - 70, 0) : i] == ids[i]) for i in range(1, len(ids))]
    np.testing.assert_allclose(np.exp(Cache(50, window=70).log_probs(ids, 1)), expected)


# --- bigrams --------------------------------------------------------------------------------------


def test_bigram_adds_k():
    model = Bigram(4, k=0.5).fit([1, 2, 1, 2, 1, 3])
    assert model.prob([1], 2) == pytest.approx(2.5 / 5)  # 1 is followed three times
    assert model.prob([], 1) == model.prob([0], 1) == pytest.approx(1.5 / 3)
    assert model.prob([3], 0) == pytest.approx(0.5 / 2)  # 3 is never followed
    assert Bigram(4, k=0).fit([1, 2]).prob([2], 3) == pytest.approx(0.25)
    assert Bigram(4, k=0).fit([1, 2]).perplexity([2]) == np.inf
    assert Bigram(2, k=2**31).fit([1, 1, 1, 1, 1, 1, 0]).prob([1], 1) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="k must be finite and at least 0, got -1"):
        Bigram(4, k=-1)


def test_neural_bigram_takes_the_lectures_steps():
    ids = text(500, 6, seed=4)
    model = NeuralBigram(6, steps=20, lr=5).fit(ids)  # 50 would magnify rounding, so few are they
    xs = torch.tensor([0, *ids[:-1].tolist()])
    ys = torch.from_numpy(ids).long()
    weight = torch.randn((6, 6), generator=torch.Generator().manual_seed(2147483647))
    weight.requires_grad_()
    for found in model.losses:
        loss = F.cross_entropy(weight[xs], ys) + 0.01 * (weight**2).mean()
        assert found == pytest.approx(loss.item(), rel=1e-5)
        weight.grad = None
        loss.backward()
        weight.data += -5 * weight.grad
    torch.testing.assert_close(model.weight, weight.detach(), rtol=1e-4, atol=1e-4)
    expected = F.log_softmax(weight.double(), 1)[xs, ys].detach()
    np.testing.assert_allclose(model.log_probs(ids), expected, atol=1e-4)
    np.testing.assert_array_equal(model.log_probs(ids, 3, 9), model.log_probs(ids)[3:9])


def test_neural_bigram_refuses_what_does_not_fit_in_memory():
    with pytest.raises(ValueError, match=r"17905 takes about 6.0 GiB, more than max_bytes"):
        NeuralBigram(17905)
    with pytest.raises(ValueError, match="from 0 to 2, got 3 at position 1"):
        NeuralBigram(3).fit([1, 3])
    with pytest.raises(ValueError, match="no tokens"):
        NeuralBigram(3).fit([])


@pytest.mark.skipif(not LECTURE_FILE.exists(), reason="the lecture's names.txt is not here")
def test_bigrams_have_the_lectures_losses():
    lines = read_lines(LECTURE_FILE)
    stream = encode(lines, Vocabulary.characters(lines))
    losses = [-Bigram(27, k).fit(stream).log_probs(stream).mean() for k in (0, 1)]
    assert losses == pytest.approx([2.4540145, 2.4545768], abs=1e-7)
    network = NeuralBigram(27).fit(stream)
    assert network.losses[0] == pytest.approx(3.7686186, abs=1e-6)
    assert network.losses[-1] == pytest.approx(2.49013, abs=1e-5)
