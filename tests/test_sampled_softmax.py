"""`TrainConfig.sampled_softmax`, against the rule written out by hand, and what it estimates."""

import math

import pytest
import torch
from rows_testing import (
    CASES,
    ENGINES,
    OUTPUT_LAYER,
    RULES,
    assert_close,
    examples_of,
    same_bits,
    settings,
    train,
    train_by_hand,
)

from pymlp import TrainConfig, reference
from pymlp.candidates import CandidateSampler
from pymlp.model import seeded_model

NOISE = {"small": 12, "large": 100, "direct": 12, "dropout": 12}
V = 40


@pytest.fixture(autouse=True)
def one_thread(set_num_threads):
    set_num_threads(1)


def sampled(case, rule="adamw", **options):
    options = {"sampled_softmax": NOISE[case], "label_smoothing": 0.0} | options
    return settings(case, rule, **options)


def sampler_of(noise, batch_size=4, seed=5):
    config = TrainConfig(sampled_softmax=noise, batch_size=batch_size, seed=seed)
    return CandidateSampler(examples_of("small"), V, config, torch.zeros(0, dtype=torch.float64))


@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", CASES)
def test_only_the_candidates_are_compared_and_updated(case, rule, max_norm):
    z_loss = 0.1 if case == "direct" else 0.0
    config = sampled(case, rule, max_grad_norm=max_norm, z_loss=z_loss)
    expected = train_by_hand(case, config)
    for engine in ENGINES:
        assert_close(train(case, engine, config), expected)


@pytest.mark.parametrize("case", ["small", "large"])
def test_it_goes_with_a_sparse_embedding(case):
    config = sampled(case, sparse_embedding=True)
    expected = train_by_hand(case, config)
    for engine in ENGINES:
        assert_close(train(case, engine, config), expected)


@pytest.mark.parametrize("noise", [1, 5000])
def test_noise_may_be_one_word_or_find_them_all(noise):
    config = sampled("small", sampled_softmax=noise)
    expected = train_by_hand("small", config)
    for engine in ENGINES:
        assert_close(train("small", engine, config), expected)


@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("case", CASES)
def test_the_bits_do_not_depend_on_threads(case, max_norm):
    config = sampled(case, max_grad_norm=max_norm)
    assert same_bits(train(case, "native", config), train(case, "native", config, threads=2))


@pytest.mark.parametrize("name", ["embedding.weight", *OUTPUT_LAYER])
def test_frozen_parameters_stay(name):
    found, expected = (
        train("direct", engine, sampled("direct"), frozen=[name])
        for engine in ("native", "autograd")
    )
    before = seeded_model(CASES["direct"][0], seed=1).double().get_parameter(name)
    assert torch.equal(found[0][name], before)
    assert_close(found, expected)


def test_candidates_are_the_targets_and_words_in_proportion():
    """In the mean each word is drawn as often as its offset expects."""
    examples, sampler = examples_of("small"), sampler_of(20)
    g = torch.Generator().manual_seed(1)
    steps = 4000
    seen = torch.zeros(V, dtype=torch.float64)
    for step in range(steps):
        targets = examples.targets[torch.randint(0, 1000, (4,), generator=g)]
        words, places, offsets = sampler.draw(step, targets)
        assert torch.equal(words[places], targets)
        assert (words.diff() > 0).all()
        seen[words] += offsets.exp()
    # Draws over expected draws; a word is expected 0.6 times a step.
    assert (seen / steps - 1).abs().max() < 5 / math.sqrt(0.4 * steps)


def test_candidates_are_a_function_of_seed_step_and_targets():
    targets = torch.tensor([3, 1, 3, 7])
    first, again = sampler_of(20), sampler_of(20)
    first.draw(8, targets)
    assert all(map(torch.equal, first.draw(9, targets), again.draw(9, targets)))
    others = (again.draw(10, targets), sampler_of(20, seed=6).draw(9, targets))
    for other in others:
        assert not torch.equal(other.words, first.draw(9, targets).words)


def test_with_much_noise_the_loss_is_the_cross_entropy():
    model = seeded_model(CASES["small"][0], seed=1).double()
    examples = examples_of("small")
    tokens, targets = examples.tokens[:200], examples.targets[:200]
    exact = model.loss(tokens, targets).item()
    candidates = sampler_of(2_000_000, batch_size=200).draw(0, targets)
    assert len(candidates.words) == V
    found = model.loss(tokens, targets, candidates=candidates).item()
    assert found == pytest.approx(exact, rel=1e-3)
    plain = reference.MLP(model.config).double()
    plain.load_state_dict(model.state_dict())
    loss = plain.loss(tokens, targets, candidates=candidates).item()
    assert loss == pytest.approx(found, rel=1e-12)


def test_a_target_outside_the_vocabulary_is_an_error():
    with pytest.raises(IndexError, match="a target must be from 0 to 39, got 40"):
        sampler_of(20).draw(0, torch.tensor([0, 1, 2, 40]))


def test_smoothing_and_sampling_exclude_each_other():
    with pytest.raises(ValueError, match=r"label_smoothing .* sampled_softmax .* one of them"):
        TrainConfig(label_smoothing=0.1, sampled_softmax=10)
    with pytest.raises(ValueError, match="sampled_softmax must be at least 1, got 0"):
        TrainConfig(sampled_softmax=0)
