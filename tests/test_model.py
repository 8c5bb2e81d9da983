"""The model: sizes, exchange with the reference, the lecture's initialisation, presets."""

import dataclasses
import math

import pytest
import torch

from pymlp import reference
from pymlp.config import TrainConfig
from pymlp.model import MLP, MLPConfig, lecture_init, seeded_model
from pymlp.presets import PRESETS

CONFIG = MLPConfig(vocab_size=27)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(27, (32, 3), generator=generator)
    return tokens, torch.randint(27, (32,), generator=generator)


def fused_and_plain(config=CONFIG):
    """The two models in float64 with the same parameters, moved by state_dict."""
    fused, plain = MLP(config).double(), reference.MLP(config).double()
    lecture_init(fused)
    plain.load_state_dict(fused.state_dict())
    return fused, plain


def test_config_counts_parameters():
    assert MLPConfig(27).n_params == 11_897  # the lecture's number
    for config in (MLPConfig(27, 3, 2, 100), MLPConfig(1, 1, 1, 1), MLPConfig(7, 5, 4, 6)):
        assert config.n_params == sum(p.numel() for p in MLP(config).parameters())


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"vocab_size": 0}, ValueError, "vocab_size must be at least 1, got 0"),
        ({"vocab_size": 27, "n_embd": -2}, ValueError, "n_embd must be at least 1, got -2"),
        ({"vocab_size": 27, "block_size": 3.0}, TypeError, "block_size must be an int, got 3.0"),
        ({"vocab_size": 27, "n_hidden": True}, TypeError, "n_hidden must be an int, got True"),
    ],
)
def test_config_rejects_bad_sizes(fields, error, message):
    with pytest.raises(error, match=message):
        MLPConfig(**fields)


def test_state_dict_has_torch_names_and_shapes():
    shapes = {name: tuple(p.shape) for name, p in MLP(CONFIG).state_dict().items()}
    assert shapes == {
        "embedding.weight": (27, 10),
        "hidden.weight": (200, 30),
        "hidden.bias": (200,),
        "output.weight": (27, 200),
        "output.bias": (27,),
    }


def test_both_models_start_alike():
    torch.manual_seed(5)
    fused = MLP(CONFIG).state_dict()
    torch.manual_seed(5)
    plain = reference.MLP(CONFIG).state_dict()
    assert list(fused) == list(plain)
    assert all(torch.equal(fused[name], plain[name]) for name in fused)


def test_both_models_have_the_same_logits_loss_and_gradients(batch):
    fused, plain = fused_and_plain()
    tolerance = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(fused(batch[0]), plain(batch[0]), **tolerance)
    losses = fused.loss(*batch), plain.loss(*batch)
    torch.testing.assert_close(*losses, **tolerance)
    for loss in losses:
        loss.backward()
    for ours, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, **tolerance)


@pytest.mark.parametrize("model_class", [MLP, reference.MLP])
def test_forward_takes_any_leading_shape(model_class, batch):
    model = model_class(CONFIG)
    logits = model(batch[0])
    assert logits.shape == (32, 27)
    torch.testing.assert_close(model(batch[0][0]), logits[0])
    torch.testing.assert_close(model(batch[0].view(4, 8, 3)), logits.view(4, 8, 27))
    assert model(batch[0][:0]).shape == (0, 27)


@pytest.mark.parametrize("model_class", [MLP, reference.MLP])
def test_lecture_init_draws_the_lectures_parameters(model_class, batch):
    model = model_class(CONFIG)
    parameters = list(model.parameters())
    before = torch.get_rng_state()
    lecture_init(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))

    g = torch.Generator().manual_seed(2147483647)
    C = torch.randn((27, 10), generator=g)
    W1 = torch.randn((30, 200), generator=g)
    b1 = torch.randn(200, generator=g)
    W2 = torch.randn((200, 27), generator=g)
    b2 = torch.randn(27, generator=g)
    logits = torch.tanh(C[batch[0]].view(-1, 30) @ W1 + b1) @ W2 + b2
    torch.testing.assert_close(model(batch[0]), logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.hidden.weight, W1.T)
    assert model.hidden.weight.is_contiguous()
    lecture_init(model, seed=1)
    assert not torch.equal(model.hidden.weight, W1.T)


def test_presets_are_the_lectures_settings():
    assert MLPConfig(27, **PRESETS["lecture-2d"].model) == MLPConfig(27, 3, 2, 100)
    assert MLPConfig(27, **PRESETS["lecture"].model) == MLPConfig(27, 3, 10, 200)
    train = TrainConfig(**PRESETS["lecture"].train)
    rates = [train.learning_rate(step) for step in (0, 99_999, 100_000, 199_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert (train.steps, train.batch_size, train.seed) == (200_000, 32, 2147483647)
    constant = TrainConfig(**PRESETS["lecture-2d"].train)
    assert constant.learning_rate(0) == constant.learning_rate(constant.steps - 1) == 0.1
    assert PRESETS["lecture"].init == PRESETS["lecture-2d"].init == "lecture"


def test_bengio_is_the_papers_mlp10():
    preset = PRESETS["bengio"]
    config = MLPConfig(16_383, **preset.model)
    # |V| (1 + m + h) + h (1 + (n - 1) m) with n = 5, m = 30, h = 100
    assert config.n_params == 16_383 * (1 + 30 + 100) + 100 * (1 + 4 * 30)
    train = TrainConfig(**preset.train)
    assert (train.weight_decay, train.decay_biases) == (1e-4, False)
    # Examples move the parameters as far as the paper's steps, one example each, do.
    for step in (0, 10_000, 64_999):
        examples = step * train.batch_size
        paper = 1e-3 / (1 + 1e-8 * examples)
        assert train.learning_rate(step) / train.batch_size == pytest.approx(paper)


def test_settings_cannot_change_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.n_embd = 3
    with pytest.raises(TypeError):
        PRESETS["lecture"].model["n_embd"] = 3


def test_scaled_init_begins_with_the_frequencies():
    counts = torch.tensor([1, 0, 0, 3, 0])
    config = MLPConfig(5, block_size=20, n_embd=50, n_hidden=400, direct=True)
    model = seeded_model(config, seed=3, init="unigram", counts=counts)
    tokens = torch.randint(5, (300, 20), generator=torch.Generator().manual_seed(1))
    expected = torch.tensor([2, 1, 1, 4, 1]) / 9
    assert model.output.bias.exp().tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    deviations = [p.std().item() for p in (model.embedding.weight, model.hidden.weight)]
    assert deviations == pytest.approx([0.05, (5 / 3) / 1000**0.5], rel=0.15)
    assert model.output.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not model.hidden.bias.any()
    assert not model.direct.weight.any()
    log_z = model(tokens).logsumexp(-1)
    assert log_z.abs().max().item() < 0.5
    even = seeded_model(config, seed=3, init="scaled")
    assert even.embedding.weight.std().item() == pytest.approx(1.0, rel=0.15)
    assert even.output.bias.tolist() == pytest.approx([-math.log(5)] * 5)
    assert torch.equal(even.hidden.weight, model.hidden.weight)
    with pytest.raises(ValueError, match="init='unigram' needs the counts"):
        seeded_model(config, seed=3, init="unigram")
