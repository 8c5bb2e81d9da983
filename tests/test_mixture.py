"""Mixtures: exact values, EM that never falls and finds the maximum, bins, errors."""

import numpy as np
import pytest

from pymlp.ngram import Mixture


def models(n, seed=0):
    """log p of three models, the first good in bin 0, the second in bin 1, the last never."""
    generator = np.random.default_rng(seed)
    bins = generator.integers(0, 2, n)
    good, fair = generator.uniform(0.3, 1, n), generator.uniform(0, 0.6, n)
    probs = [np.where(bins == 0, good, fair), np.where(bins == 0, fair, good)]
    return [np.log(p) for p in (*probs, generator.uniform(0, 0.2, n))], bins


def test_fixed_weights():
    a, b = np.log([0.5, 0.25]), np.array([np.log(0.1), -np.inf])
    np.testing.assert_allclose(np.exp(Mixture("fixed").log_probs([a, b])), [0.3, 0.125])
    weighted = Mixture("fixed", [0.8, 0.2]).fit([a, b])
    np.testing.assert_allclose(np.exp(weighted.log_probs([a, b])), [0.42, 0.2])
    with np.errstate(all="raise"):
        tiny = Mixture("fixed").log_probs([[-2000.0, -np.inf], [-2001.0, -np.inf]])
    assert tiny[0] == pytest.approx(-2000 + np.log((1 + np.exp(-1)) / 2))
    assert tiny[1] == -np.inf


@pytest.mark.parametrize(("kind", "prior"), [("learned", 0), ("binned", 0), ("binned", 20)])
def test_em_never_falls(kind, prior):
    log_probs, bins = models(3000)
    mixture = Mixture(kind, prior=prior).fit(log_probs, bins if kind == "binned" else None)
    assert len(mixture.objectives) > 5
    assert (np.diff(mixture.objectives) >= -1e-14).all()
    np.testing.assert_allclose(mixture.weights.sum(axis=-1), 1)


def test_the_objective_is_the_mean_log_likelihood():
    log_probs, bins = models(500)
    for mixture, given in ((Mixture("learned"), None), (Mixture("binned"), bins)):
        mixture.fit(log_probs, given)
        assert mixture.objectives[-1] == pytest.approx(mixture.log_probs(log_probs, given).mean())
    common = Mixture("learned").fit(log_probs).weights
    drawn = Mixture("binned", prior=20).fit(log_probs, bins)
    log_prior = (20 * common * np.log(drawn.weights)).sum()
    expected = (drawn.log_probs(log_probs, bins).sum() + log_prior) / 500
    assert drawn.objectives[-1] == pytest.approx(expected)


def test_learned_weights_are_the_best_of_a_grid():
    log_probs, _ = models(2000)
    a, b = log_probs[:2]
    learned = Mixture("learned").fit([a, b], tolerance=1e-12, max_steps=10000)
    grid = [Mixture("fixed", [w, 1 - w]).log_probs([a, b]).mean() for w in np.linspace(0, 1, 201)]
    assert learned.log_probs([a, b]).mean() >= max(grid)
    assert learned.weights[0] == pytest.approx(np.linspace(0, 1, 201)[np.argmax(grid)], abs=5e-3)


def test_binned_weights_follow_the_bins():
    log_probs, bins = models(4000)
    learned, binned = Mixture("learned").fit(log_probs), Mixture("binned").fit(log_probs, bins)
    assert binned.weights.shape == (2, 3)
    assert binned.weights[0, 0] > 0.9 < binned.weights[1, 1]
    test, test_bins = models(4000, seed=1)
    gain = binned.log_probs(test, test_bins).mean() - learned.log_probs(test).mean()
    assert gain > 0.1
    apart = [Mixture("learned").fit([p[bins == b] for p in log_probs]).weights for b in (0, 1)]
    np.testing.assert_allclose(binned.weights, apart, atol=1e-2)


@pytest.mark.parametrize(("prior", "weight"), [(0, 1), (20, 2 / 3)])
def test_a_bin_may_want_what_all_others_do_without(prior, weight):
    """The common weight of the second model is almost 0; bin 1 has nothing but good of it."""
    bins = np.repeat([0, 1], [9900, 100])
    log_probs = np.log([np.full(10000, 0.2), np.where(bins == 1, 0.4, 0.1)])
    mixture = Mixture("binned", prior=prior).fit(log_probs, bins, tolerance=1e-12)
    assert mixture.weights[1, 1] == pytest.approx(weight, abs=1e-4)


def test_bins_without_data_have_the_common_weights():
    log_probs, bins = models(500)
    learned = Mixture("learned").fit(log_probs)
    binned = Mixture("binned").fit(log_probs, 3 * bins)
    np.testing.assert_array_equal(binned.weights[1], learned.weights)
    for unseen in (1, 4, 99):
        found = binned.log_probs(log_probs, np.full(500, unseen))
        assert found.tobytes() == learned.log_probs(log_probs).tobytes()


def test_a_prior_draws_small_bins_to_the_common_weights():
    log_probs, bins = models(500)
    learned = Mixture("learned").fit(log_probs).weights
    near, far = (Mixture("binned", prior=p).fit(log_probs, bins).weights for p in (1e6, 1))
    np.testing.assert_allclose(near, [learned, learned], atol=1e-2)
    assert abs(far - learned).max() > 0.2


def test_errors_say_what_is_wrong():
    a = np.log([0.5, 0.5])
    with pytest.raises(ValueError, match="got 'best'"):
        Mixture("best")
    with pytest.raises(ValueError, match="sum to 1"):
        Mixture("fixed", [0.5, 0.6])
    with pytest.raises(ValueError, match="for kind 'fixed', not for 'learned'"):
        Mixture("learned", [0.5, 0.5])
    with pytest.raises(ValueError, match=r"shape \(N,\), got \[\(2,\), \(1,\)\]"):
        Mixture("learned").fit([a, a[:1]])
    with pytest.raises(ValueError, match="no positions"):
        Mixture("learned").fit([[], []])
    with pytest.raises(ValueError, match="position 1 has probability 0 under all"):
        Mixture("learned").fit([[0.0, -np.inf]] * 2)
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="prior must be finite and at least 0"):
            Mixture("binned", prior=wrong)
        with pytest.raises(ValueError, match="NaN"):
            Mixture("learned").fit([a, [0.0, wrong]])
    with pytest.raises(ValueError, match="'binned' needs bins"):
        Mixture("binned").fit([a, a])
    with pytest.raises(ValueError, match="'learned' takes no bins"):
        Mixture("learned").fit([a, a], [0, 1])
    with pytest.raises(ValueError, match="2 integers from 0 up"):
        Mixture("binned").fit([a, a], [0, -1])
    with pytest.raises(RuntimeError, match="call fit"):
        Mixture("learned").log_probs([a, a])
    with pytest.raises(ValueError, match="expected 2 models, got 3"):
        Mixture("learned").fit([a, a]).log_probs([a, a, a])
