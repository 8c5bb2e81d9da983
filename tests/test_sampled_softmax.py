"""`TrainConfig.sampled_softmax`, against the rule written out by hand, and what it estimates."""

from dataclasses import replace

import pytest
import rows_testing
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

from pymlp import MLP, MLPConfig, TrainConfig, Trainer, reference
from pymlp.data import Dataset, Examples, names
from pymlp.engines import make_engine
from pymlp.model import seeded_model

NOISE = {"small": 12, "large": 100, "wide": 800, "direct": 12, "dropout": 12}
V = 40
# The last words are no targets.
_drawn = examples_of("small")
EXAMPLES = Examples(_drawn.tokens, _drawn.targets % 36)


@pytest.fixture(autouse=True)
def one_thread(set_num_threads):
    set_num_threads(1)


def sampled(case, rule="adamw", **options):
    options = {"sampled_softmax": NOISE[case], "label_smoothing": 0.0} | options
    return settings(case, rule, **options)


def sampler_of(noise, batch_size=4, seed=5):
    config = TrainConfig(sampled_softmax=noise, batch_size=batch_size, seed=seed)
    return rows_testing.sampler_of(EXAMPLES, V, config)


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


def test_noise_is_of_the_unigram_distribution_to_the_power_three_quarters():
    """And the offsets say how often each candidate was drawn over how often that is expected."""
    B, K, steps = 4, 20, 3000
    counts = EXAMPLES.counts(V).double().clamp(min=1)
    assert EXAMPLES.counts(V)[-1] == 0
    q, p = counts**0.75 / (counts**0.75).sum(), counts / counts.sum()
    sampler, g = sampler_of(K, B), torch.Generator().manual_seed(1)
    noise = torch.zeros(V, dtype=torch.float64)
    for step in range(steps):
        targets = EXAMPLES.targets[torch.randint(0, 1000, (B,), generator=g)]
        words, places, offsets = sampler.draw(step, targets)
        assert torch.equal(words[places], targets)
        assert (words.diff() > 0).all()
        draws = offsets.exp() * (K * q + B * p)[words]
        torch.testing.assert_close(draws, draws.round(), rtol=0, atol=1e-9)
        assert draws.sum() == pytest.approx(K + B)
        noise[words] += draws.round()
        noise -= targets.bincount(minlength=V)
    errors = (noise - steps * K * q) / (steps * K * q * (1 - q)).sqrt()
    assert errors.abs().max() < 4


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
    tokens, targets = EXAMPLES.tokens[:200], EXAMPLES.targets[:200]
    exact = model.loss(tokens, targets).item()
    candidates = sampler_of(2**20, batch_size=200).draw(0, targets)
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


@pytest.mark.parametrize("engine", ["autograd", "reference"])
@pytest.mark.parametrize("sparse", [False, True])
def test_tied_weights_have_the_rows_of_both_places(engine, sparse):
    sizes = MLPConfig(V, n_embd=7, n_hidden=7)
    model = seeded_model(sizes, seed=1).double()
    model.output.weight = model.embedding.weight
    before = model.output.weight.detach().clone()
    config = TrainConfig(
        batch_size=2, optimizer="momentum", sparse_embedding=sparse, sampled_softmax=1, seed=5
    )
    steps = rows_testing.steps_of("small")
    steps.indices = steps.indices[:1, :2]
    steps.rates, steps.losses, steps.grad_norms = steps.rates[:1], steps.losses[:1], None
    make_engine(engine, model, EXAMPLES, config).run(steps)
    moved = (model.output.weight != before).any(1).nonzero()[:, 0]
    (rows,) = steps.indices
    words = sampler_of(1, batch_size=2).draw(0, EXAMPLES.targets[rows]).words
    tokens = EXAMPLES.tokens[rows].flatten()
    assert torch.equal(moved, torch.cat([words, tokens]).unique())


def test_a_model_without_a_bias_of_the_output():
    models = [MLP(MLPConfig(V, n_hidden=7)), reference.MLP(MLPConfig(V, n_hidden=7))]
    for model in models:
        model.output.bias = None
    models[1].load_state_dict(models[0].state_dict())
    tokens, targets = EXAMPLES.tokens[:4], EXAMPLES.targets[:4]
    candidates = sampler_of(20).draw(0, targets)
    candidates = candidates._replace(offsets=candidates.offsets.float())
    loss, plain = (model.loss(tokens, targets, candidates=candidates) for model in models)
    torch.testing.assert_close(loss, plain)
    for model in models:
        with pytest.raises(ValueError, match=r"label_smoothing spreads .* use one of them alone"):
            model.loss(tokens, targets, candidates=candidates, label_smoothing=0.1)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_is_gone_on_with(tmp_path, engine):
    data = Dataset.from_lines(names()[:200])
    config = sampled("small", "momentum", engine=engine, steps=40)
    sizes = MLPConfig(len(data.vocabulary), n_embd=2, n_hidden=8)
    Trainer(seeded_model(sizes, seed=1), data, replace(config, steps=20)).save(tmp_path)
    for steps in (20, 40):
        resumed = Trainer.resume(tmp_path, data, steps=steps)
        assert resumed.config.sampled_softmax == 12
        resumed.fit()
    whole = Trainer(seeded_model(sizes, seed=1), data, config)
    whole.fit()
    assert torch.equal(resumed.history.losses, whole.history.losses)


def test_smoothing_and_sampling_exclude_each_other():
    with pytest.raises(ValueError, match=r"label_smoothing .* sampled_softmax .* one of them"):
        TrainConfig(label_smoothing=0.1, sampled_softmax=10)
    with pytest.raises(ValueError, match="sampled_softmax must be at least 1, got 0"):
        TrainConfig(sampled_softmax=0)
    with pytest.raises(ValueError, match="at most 1048576, got 1048577: None is the exact softmax"):
        TrainConfig(sampled_softmax=2**20 + 1)
