"""Interruptions of the device's engine: whenever they come, no step is lost or done twice."""

from dataclasses import replace

import pytest
import torch
from device_testing import DATA, SMALL, assert_same, interrupt, needs_kernels
from ops_testing import WHERE

from pymlp import device_engine, device_graph


@needs_kernels
def test_an_interruption_leaves_what_is_done(way, monkeypatch):
    whole = SMALL.trainer(DATA, device=WHERE)
    whole.fit()
    trainer = SMALL.trainer(DATA, device=WHERE)
    op = "train_models" if way == "kernel" else "mlp_update"
    interrupt(monkeypatch, device_engine.ops, op, call=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert 0 < trainer.step < SMALL.steps
    trainer.fit()
    assert_same(trainer.model, whole.model)


@needs_kernels
def test_an_interruption_while_waiting_leaves_what_is_done(way, monkeypatch):
    whole = SMALL.trainer(DATA, device=WHERE)
    whole.fit()
    trainer = SMALL.trainer(DATA, device=WHERE)
    trainer.stepper.run(2)
    done = trainer.step
    interrupt(monkeypatch, device_engine if way == "kernel" else device_graph, "wait")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert trainer.step > done
    trainer.fit()
    assert_same(trainer.model, whole.model)


@needs_kernels
def test_an_interruption_while_results_are_fetched_leaves_all_of_them(way, monkeypatch):
    config = replace(SMALL, log_grad_norm=True)
    whole = config.trainer(DATA, device=WHERE)
    expected = whole.stepper.begin(20)
    whole.engine.run(expected)
    trainer = config.trainer(DATA, device=WHERE)
    steps = trainer.stepper.begin(20)
    interrupt(monkeypatch, torch.Tensor, "cpu")
    with pytest.raises(KeyboardInterrupt):
        trainer.engine.run(steps)
    assert steps.done == len(steps)
    assert torch.equal(steps.losses, expected.losses)
    assert torch.equal(steps.grad_norms, expected.grad_norms)


@needs_kernels
def test_an_interruption_of_many_leaves_what_is_done_of_each(where, monkeypatch):
    configs = [SMALL, replace(SMALL, seed=5)]
    trainers = [config.trainer(DATA, device=where) for config in configs]
    steps = [trainer.stepper.begin(20) for trainer in trainers]
    interrupt(monkeypatch, device_engine._Launch, "_collect")
    interrupt(monkeypatch, device_engine, "wait")
    with pytest.raises(KeyboardInterrupt):
        device_engine.run_together([(t.engine, s) for t, s in zip(trainers, steps, strict=True)])
    for config, trainer, part in zip(configs, trainers, steps, strict=True):
        assert part.done == len(part)
        trainer.stepper.end(part, 1.0)
        trainer.fit()
        whole = config.trainer(DATA, device=where)
        whole.fit()
        assert_same(trainer.model, whole.model)
