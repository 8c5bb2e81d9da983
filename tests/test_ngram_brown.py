"""The baselines on the Brown corpus, where it is: perplexities on dev, never on test."""

from pathlib import Path

import numpy as np
import pytest

from pymlp.data import Vocabulary, encode, read_words
from pymlp.ngram import Bigram, DeletedInterpolation, KneserNey, Mixture, context_bins

BROWN = Path(__file__).resolve().parents[2] / "shared" / "data" / "brown.txt"

pytestmark = pytest.mark.skipif(not BROWN.exists(), reason="the Brown corpus is not here")


@pytest.fixture(scope="module")
def brown():
    """Streams of the first 800,000 words and of the next 200,000, and the size V."""
    lines = read_words(BROWN)
    vocabulary = Vocabulary.words(lines, min_count=4)
    ids = encode(lines, vocabulary)
    train, dev, _ = np.split(ids, np.flatnonzero(ids)[[800_000, 1_000_000]])
    assert [np.count_nonzero(part) for part in (train, dev)] == [800_000, 200_000]
    return train, dev, len(vocabulary)


@pytest.mark.parametrize(("order", "reset", "expected"), [(3, True, 254.93), (5, False, 251.74)])
def test_kneser_ney(brown, order, reset, expected):
    train, dev, vocab_size = brown
    assert vocab_size == 17_906
    model = KneserNey(order, vocab_size, reset).fit(train)
    assert model.perplexity(dev) == pytest.approx(expected, abs=0.01)
    if not reset:
        for context in ([dev[9], dev[10], dev[11], dev[12]], [0, 0, 0, 17_905]):
            stream = np.array([[*context, w] for w in range(vocab_size)], np.int32).reshape(-1)
            probs = np.exp(model.log_probs(stream)[order - 1 :: order])
            assert probs.sum() == pytest.approx(1, abs=1e-10)


def test_the_other_baselines_stand_in_the_order_of_the_paper(brown):
    train, dev, vocab_size = brown
    bigram = Bigram(vocab_size, k=0.01).fit(train).perplexity(dev)
    interpolated = DeletedInterpolation(3, vocab_size, reset=False).fit(train, dev).perplexity(dev)
    assert interpolated == pytest.approx(275.4, abs=0.1)
    assert 251.74 < interpolated < bigram == pytest.approx(523.1, abs=0.1)


def test_mixtures_gain_with_every_freedom(brown):
    train, dev, vocab_size = brown
    dev = dev[:50_000]
    models = [KneserNey(n, vocab_size, reset).fit(train) for n, reset in ((5, True), (2, False))]
    log_probs = [model.log_probs(dev) for model in models]
    bins = context_bins(models[0].counts.look_up(dev))
    fixed = Mixture("fixed").log_probs(log_probs).mean()
    learned = Mixture("learned").fit(log_probs).objectives[-1]
    binned = Mixture("binned").fit(log_probs, bins).objectives[-1]
    assert log_probs[0].mean() < learned > fixed
    assert binned > learned
