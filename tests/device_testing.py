"""What the tests of the device's engine have in common."""

from dataclasses import replace

import pytest
import torch
from ops_testing import WHERE

from pymlp import RunConfig, device_engine
from pymlp.data import Dataset, names
from pymlp.native import NativeEngine

DATA = Dataset.from_lines(names()[:200])
SMALL = RunConfig(steps=30, batch_size=6, n_embd=3, n_hidden=9, eval_every=20, log_every=10)
LECTURE = RunConfig(steps=300, eval_every=0, log_every=300)
CLIPPED = replace(SMALL, max_grad_norm=0.5, log_grad_norm=True)


def needs_kernels(test):
    reason = "needs CUDA kernels, on a GPU or emulated"
    return pytest.mark.gpu(pytest.mark.skipif(WHERE is None, reason=reason)(test))


def on_a_gpu(test):
    return pytest.mark.gpu(pytest.mark.skipif(WHERE != "cuda", reason="needs a GPU")(test))


def assert_same(model, other):
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p.cpu(), q.cpu())


def assert_close(model, other, tolerance):
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.detach().cpu(), q.detach(), rtol=tolerance, atol=tolerance)


def interrupt(monkeypatch, module, name, call=1, raising=KeyboardInterrupt):
    """The function does its work, but at this call it raises an exception after it."""
    function = getattr(module, name)
    calls = []

    def interrupted(*arguments, **options):
        result = function(*arguments, **options)
        calls.append(None)
        if len(calls) == call:
            raise raising
        return result

    monkeypatch.setattr(module, name, interrupted)


def on_cpu(config, monkeypatch):
    """The same run by the engine of the CPU."""
    with monkeypatch.context() as context:
        context.setattr(device_engine, "DEVICES", ())
        trainer = config.trainer(DATA)
        assert isinstance(trainer.engine, NativeEngine)
        return trainer, trainer.fit()


def assert_follows_the_cpu(config, model, history, monkeypatch):
    """What a run ended with is what the engine of the CPU ends with."""
    exact, expected = on_cpu(config, monkeypatch)
    tolerance = 1e-10 if config.dtype == "float64" else 2e-5
    torch.testing.assert_close(history.losses, expected.losses, rtol=tolerance, atol=tolerance)
    if config.log_grad_norm:
        torch.testing.assert_close(
            history.grad_norms, expected.grad_norms, rtol=tolerance, atol=tolerance
        )
    assert_close(model, exact.model, 10 * tolerance)
    assert history.evals[-1].dev == pytest.approx(expected.evals[-1].dev, rel=tolerance)
