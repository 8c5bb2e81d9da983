"""Training configuration: schedules against literals, and the errors of bad values."""

import math

import pytest

from pymlp.config import ENGINES, TrainConfig
from pymlp.engines import _ENGINES
from pymlp.presets import PRESETS


def test_constant_rate():
    config = TrainConfig(steps=10, lr=0.3)
    assert [config.learning_rate(step) for step in (0, 5, 9)] == [0.3, 0.3, 0.3]


def test_lecture_drops_at_step_100000():
    config = TrainConfig(**PRESETS["lecture"].train)
    assert config.steps == 200_000
    rates = [config.learning_rate(step) for step in (0, 99_999, 100_000, 199_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01], rel=1e-15)


def test_step_without_a_place_drops_half_way():
    config = TrainConfig(steps=7, lr=1.0, schedule="step", lr_drop_factor=0.5)
    assert [config.learning_rate(step) for step in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.5]


def test_cosine_after_warmup():
    config = TrainConfig(steps=8, lr=1.0, schedule="cosine", warmup_steps=4, lr_min=0.2)
    half = math.sqrt(0.5)
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half]
    assert [config.learning_rate(step) for step in range(8)] == pytest.approx(expected, rel=1e-15)
    assert config.learning_rate(8) == pytest.approx(0.2)


def test_inverse_is_the_papers():
    config = TrainConfig(steps=10, lr=0.5, schedule="inverse", lr_decay=0.25)
    rates = [config.learning_rate(step) for step in (0, 1, 4, 8)]
    assert rates == pytest.approx([0.5, 0.4, 0.25, 0.5 / 3], rel=1e-15)


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("steps", 0, ValueError, "steps must be at least 1, got 0"),
        ("steps", 1.5, TypeError, "steps must be an int, got 1.5"),
        ("batch_size", True, TypeError, "batch_size must be an int, got True"),
        ("lr", 0.0, ValueError, "lr must be finite and above 0 and at most 1e\\+38, got 0"),
        ("lr", math.nan, ValueError, "lr must be finite"),
        ("lr", "fast", TypeError, "lr must be a number, got 'fast'"),
        ("lr_min", 0.2, ValueError, "lr_min must be finite and at least 0 and at most 0.1"),
        ("momentum", 1.0, ValueError, "momentum must be finite and at least 0 and below 1"),
        ("weight_decay", -0.1, ValueError, "weight_decay must be finite and at least 0"),
        ("betas", (0.9,), ValueError, "betas must be two numbers"),
        ("lr_decay", -1.0, ValueError, "lr_decay must be finite and at least 0"),
        ("decay_biases", None, TypeError, "decay_biases must be True or False, got None"),
        ("sparse_embedding", 1, TypeError, "sparse_embedding must be True or False, got 1"),
        ("label_smoothing", 1.1, ValueError, "label_smoothing must be .* at most 1, got 1.1"),
        ("z_loss", -0.1, ValueError, "z_loss must be finite and at least 0"),
        ("dropout", 1.0, ValueError, "dropout must be .* at least 0 and below 1, got 1"),
        ("patience", 0, ValueError, "patience must be at least 1, got 0"),
        ("average", 2.5, TypeError, "average must be an int, got 2.5"),
        ("seed", 2**63, ValueError, "seed must be at most 9223372036854775807"),
        ("lr_drop_step", -1, ValueError, "lr_drop_step must be at least 0"),
        ("log_every", 0, ValueError, "log_every must be at least 1"),
        ("schedule", "linear", ValueError, "one of 'constant', .*'inverse', got 'linear'"),
        ("optimizer", "adam", ValueError, "one of 'sgd', 'momentum', 'adamw', got 'adam'"),
        ("engine", "jit", ValueError, "one of 'auto', .*'reference', got 'jit'"),
        ("max_grad_norm", 0.0, ValueError, "above 0, got 0"),
        ("log_grad_norm", 1, TypeError, "True or False, got 1"),
    ],
)
def test_errors(field, value, error, message):
    with pytest.raises(error, match=f"TrainConfig: .*{message}"):
        TrainConfig(**{field: value})


def test_every_engine_can_be_made():
    assert {"auto", *_ENGINES} == set(ENGINES)
