"""Evaluation and sampling of a model on a device, against the CPU's."""

import pytest
import torch
from device_testing import DATA, needs_kernels
from ops_testing import WHERE

from pymlp import MLP, MLPConfig, device_engine, evaluate, inference, sample
from pymlp.data import Examples


@pytest.fixture
def model():
    torch.manual_seed(1)
    return MLP(MLPConfig(len(DATA.vocabulary), n_embd=4, n_hidden=12))


def on_device(model):
    copy = MLP(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.to(WHERE)


@needs_kernels
def test_losses_are_those_of_the_cpu(model, where, monkeypatch):
    there = on_device(model)
    found = inference.token_losses(there, DATA.dev.tokens, DATA.dev.targets)
    mean = evaluate(there, DATA.train)
    monkeypatch.setattr(device_engine, "DEVICES", ())
    expected = inference.token_losses(model, DATA.dev.tokens, DATA.dev.targets)
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert mean == pytest.approx(evaluate(model, DATA.train), rel=1e-6)
    monkeypatch.setattr(device_engine, "DEVICES", (WHERE,))
    nothing = Examples(DATA.dev.tokens[:0], DATA.dev.targets[:0])
    assert len(inference.token_losses(there, nothing.tokens, nothing.targets)) == 0


@needs_kernels
@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"temperature": 0.0}, {"top_k": 3}, {"prefix": "an", "top_k": 40}],
    ids=str,
)
def test_draws_are_those_of_the_cpu(options, model, where, monkeypatch):
    # In float64 the rounding of logits decides no draw.
    model = model.double()
    there = on_device(model.double()).double()
    there.load_state_dict(model.state_dict())
    found = sample(there, DATA.vocabulary, 60, max_length=12, **options)
    assert sample(there, DATA.vocabulary, 9, max_length=12, **options) == found[:9]
    monkeypatch.setattr(device_engine, "DEVICES", ())
    assert found == sample(model, DATA.vocabulary, 60, max_length=12, **options)


@needs_kernels
def test_of_equal_logits_the_first_are_kept(model, where, monkeypatch):
    for parameter in model.parameters():
        parameter.data.zero_()
    there = on_device(model)
    found = sample(there, DATA.vocabulary, 40, top_k=3, max_length=4)
    monkeypatch.setattr(device_engine, "DEVICES", ())
    assert found == sample(model, DATA.vocabulary, 40, top_k=3, max_length=4)


@needs_kernels
def test_logits_that_are_not_finite_give_no_samples(model, where):
    model.output.bias.data[3] = torch.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(ValueError, match="its logits are not finite"):
            sample(on_device(model), DATA.vocabulary, 5, temperature=temperature)
