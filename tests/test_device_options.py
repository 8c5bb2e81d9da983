"""Options of the model and of the run that the device's engine does as a graph of kernels."""

from dataclasses import replace

import pytest
import torch
from device_testing import (
    CLIPPED,
    DATA,
    SMALL,
    assert_close,
    assert_follows_the_cpu,
    assert_same,
    needs_kernels,
    on_a_gpu,
    on_cpu,
)
from ops_testing import WHERE

from pymlp import Trainer, device_engine, evaluate, sample, train_many
from pymlp._library import ops
from pymlp.device_engine import DeviceEngine
from pymlp.dropout import dropout_masks
from pymlp.native import NativeEngine

ADAMW = replace(SMALL, optimizer="adamw", lr=0.01, weight_decay=0.1)
OPTIONS = {
    "direct": replace(CLIPPED, direct=True),
    "direct-only": replace(ADAMW, direct=True, n_hidden=0),
    "smoothing": replace(SMALL, label_smoothing=0.1),
    "z_loss": replace(SMALL, z_loss=0.1, optimizer="momentum"),
    "dropout": replace(SMALL, dropout=0.3),
    "sgd-spared": replace(SMALL, weight_decay=0.1, decay_biases=False),
    "adamw-spared": replace(ADAMW, decay_biases=False),
    "all": replace(
        ADAMW,
        direct=True,
        label_smoothing=0.1,
        z_loss=0.1,
        dropout=0.2,
        decay_biases=False,
        max_grad_norm=0.5,
        log_grad_norm=True,
        dtype="float64",
    ),
}
each_option = pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)


@needs_kernels
@each_option
def test_a_run_follows_that_of_the_cpu(config, where, monkeypatch):
    trainer = config.trainer(DATA, device=where)
    assert isinstance(trainer.engine, DeviceEngine)
    assert not trainer.engine.persistent
    history = trainer.fit()
    assert (trainer.engine._graph._step.captured.graph is not None) == (where == "cuda")
    assert_follows_the_cpu(config, trainer.model, history, monkeypatch)


@needs_kernels
@pytest.mark.parametrize("name", ["adamw-spared", "all"])
def test_from_the_cpu_to_the_device_and_back(name, tmp_path, monkeypatch):
    config = replace(OPTIONS[name], eval_every=0)
    exact, _ = on_cpu(config, monkeypatch)
    for until, devices in ((11, ()), (22, (WHERE,)), (27, (WHERE,)), (30, ())):
        with monkeypatch.context() as context:
            context.setattr(device_engine, "DEVICES", devices)
            if until == 11:
                trainer = replace(config, steps=until).trainer(DATA)
                trainer.save(tmp_path / "run")
            else:
                place = WHERE if devices else "cpu"
                trainer = Trainer.resume(tmp_path / "run", DATA, steps=until, device=place)
            assert isinstance(trainer.engine, DeviceEngine if devices else NativeEngine)
            trainer.fit()
    assert_close(trainer.model, exact.model, 2e-4)


@needs_kernels
def test_the_same_bits_however_the_steps_are_divided(where):
    config = replace(OPTIONS["all"], direct=False)
    whole = config.trainer(DATA, device=where)
    whole.fit()
    parts = replace(config, eval_every=7, log_every=1).trainer(DATA, device=where)
    parts.fit()
    assert_same(parts.model, whole.model)


@needs_kernels
@pytest.mark.parametrize("name", ["direct.weight", "output.weight", "embedding.weight"])
def test_frozen_parameters_stay(name, where, monkeypatch):
    config = OPTIONS["direct"]

    def frozen(device):
        trainer = config.trainer(DATA, device=device)
        trainer.model.get_parameter(name).requires_grad_(False)
        return Trainer(trainer.model, DATA, config.train_config())

    before = frozen(where).model.get_parameter(name).detach().cpu()
    trainer = frozen(where)
    history = trainer.fit()
    monkeypatch.setattr(device_engine, "DEVICES", ())
    exact = frozen("cpu")
    expected = exact.fit()
    assert torch.equal(trainer.model.get_parameter(name).cpu(), before)
    torch.testing.assert_close(history.grad_norms, expected.grad_norms, rtol=2e-5, atol=2e-5)
    assert_close(trainer.model, exact.model, 2e-4)


@needs_kernels
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"direct": True}, "direct=True"),
        ({"label_smoothing": 0.1}, "label_smoothing=0.1"),
        ({"z_loss": 0.1}, "z_loss=0.1"),
        ({"dropout": 0.5}, "dropout=0.5"),
        ({"decay_biases": False, "weight_decay": 0.1}, "decay_biases=False"),
    ],
    ids=str,
)
def test_the_reason_names_what_the_training_kernel_does_not_do(option, said, where):
    trainer = replace(SMALL, **option, engine="native").trainer(DATA, device=where)
    assert trainer.engine_reason == (
        f"as configured, as a graph of the fused operators' kernels, since {said} is not among "
        "what the training kernel does"
    )
    plain = replace(SMALL, decay_biases=False).trainer(DATA, device=where)
    assert plain.engine.persistent  # there is no decay


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_are_those_of_the_cpu(dtype, where):
    config = replace(SMALL, dropout=0.3, seed=2**63 - 1)
    sizes = config.build_model(DATA).config
    expected = dropout_masks(sizes, config.train_config(), 2**40 + 5, torch.empty(0, dtype=dtype))
    like = torch.empty(0, dtype=dtype, device=where)
    step = torch.tensor([2**40 + 5], device=where)
    for hidden, mask in enumerate(expected):
        found = ops.dropout_mask(like, step, config.seed, bool(hidden), 0.3, *mask.shape)
        assert torch.equal(found.cpu(), mask)


@needs_kernels
def test_many_models_with_options(where):
    configs = [SMALL, OPTIONS["direct"], OPTIONS["dropout"]]
    results = train_many(configs, DATA, 2, device=where)
    for config, result in zip(configs, results, strict=True):
        alone = config.trainer(DATA, device=where)
        alone.fit()
        assert result.engine == "native"
        assert_same(result.model, alone.model)


@on_a_gpu
def test_a_direct_model_is_evaluated_and_sampled_from_there(where):
    model = OPTIONS["direct"].build_model(DATA)
    there = OPTIONS["direct"].build_model(DATA).to(where)
    assert evaluate(there, DATA.dev) == pytest.approx(evaluate(model, DATA.dev), rel=1e-6)
    assert len(sample(there, DATA.vocabulary, 5, max_length=8)) == 5
