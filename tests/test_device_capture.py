"""Steps that are captured as a CUDA graph, and what becomes of those that cannot be."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from device_testing import (
    DATA,
    LECTURE,
    SMALL,
    assert_close,
    assert_same,
    needs_kernels,
    on_a_gpu,
    on_cpu,
)

from pymlp import device_capture

# Whose gradients are those of PyTorch's autograd.
DROPOUT = replace(SMALL, dropout=0.3)


@needs_kernels
def test_a_step_that_cannot_be_captured_is_launched_each_time(where, monkeypatch):
    whole = DROPOUT.trainer(DATA, device=where)
    whole.fit()

    def captured(launch, device):
        tries.append(launch)
        raise RuntimeError("operation not permitted when stream is capturing")

    tries = []
    monkeypatch.setattr(device_capture, "_captured", captured)
    trainer = DROPOUT.trainer(DATA, device=where)
    trainer.stepper.run(1)
    trainer.engine._graph._step.captured._is_capturable = True  # as on a GPU
    with pytest.warns(RuntimeWarning, match="not permitted when stream is capturing") as warned:
        trainer.fit()
    assert (len(tries), len(warned)) == (1, 1)
    assert_same(trainer.model, whole.model)


@needs_kernels
def test_the_users_own_graph_of_autograd_is_left_alone(where, monkeypatch):
    trainer = DROPOUT.trainer(DATA, device=where)
    parameters = list(trainer.model.parameters())
    grad = torch.autograd.grad
    differentiated = []

    def noted(loss, inputs):
        differentiated.append(inputs)
        return grad(loss, inputs)

    monkeypatch.setattr(torch.autograd, "grad", noted)
    trainer.fit()
    assert len(differentiated) >= 3
    for inputs in differentiated:
        assert [p.data_ptr() for p in inputs] == [p.data_ptr() for p in parameters]
        assert not any(p is q for p, q in zip(inputs, parameters, strict=True))


class Stream:
    def __init__(self, name, seen):
        self.name, self.seen = name, seen

    def wait_stream(self, other):
        self.seen.append(f"{self.name} waits for {other.name}")


def test_one_thread_at_a_time_is_on_the_stream_of_captures(monkeypatch):
    seen = []
    own = Stream("own", seen)
    monkeypatch.setattr(device_capture, "_stream", lambda device: own)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("usual", seen))
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)

    def interrupted(launch):
        with device_capture._capture_stream(torch.device("cuda")):
            for _ in range(3):
                seen.append(launch)
                time.sleep(0.001)  # to another thread, if it may
            raise KeyboardInterrupt

    with ThreadPoolExecutor(4) as pool:
        for interruption in [pool.submit(interrupted, launch) for launch in range(4)]:
            with pytest.raises(KeyboardInterrupt):
                interruption.result()
    runs = [seen[at : at + 5] for at in range(0, len(seen), 5)]
    assert sorted(run[1] for run in runs) == [0, 1, 2, 3]
    for run in runs:
        assert run == ["own waits for usual", *3 * [run[1]], "usual waits for own"]


# --- what only a GPU can show ---------------------------------------------------------------------


@on_a_gpu
def test_a_loss_that_the_user_keeps_does_not_get_in_the_way(where):
    whole = DROPOUT.trainer(DATA, device=where)
    whole.fit()
    trainer = DROPOUT.trainer(DATA, device=where)
    examples = DATA.dev.to(where)
    kept = trainer.model.loss(examples.tokens, examples.targets)
    trainer.fit()
    assert trainer.engine._graph._step.captured.graph is not None
    assert kept.grad_fn is not None
    assert_same(trainer.model, whole.model)


# From 3,072 tokens in a batch on, PyTorch has another way to the embedding's gradient.
@on_a_gpu
@pytest.mark.parametrize("options", [{"direct": True}, {"dropout": 0.2}], ids=str)
def test_large_batches_under_autograd_are_captured(options, where, monkeypatch):
    config = replace(LECTURE, batch_size=4096, steps=20, lr=0.01, **options)
    trainer = config.trainer(DATA, device=where)
    history = trainer.fit()
    assert trainer.engine._graph._step.captured.graph is not None
    exact, expected = on_cpu(config, monkeypatch)
    torch.testing.assert_close(history.losses, expected.losses, rtol=1e-3, atol=1e-3)
    assert_close(trainer.model, exact.model, 1e-3)


@on_a_gpu
def test_two_threads_capture_at_once(where):
    configs = [replace(DROPOUT, seed=seed) for seed in range(4)]
    trainers = [config.trainer(DATA, device=where) for config in configs]
    with ThreadPoolExecutor(len(trainers)) as pool:
        list(pool.map(lambda trainer: trainer.fit(), trainers))
    for config, trainer in zip(configs, trainers, strict=True):
        assert trainer.engine._graph._step.captured.graph is not None
        alone = config.trainer(DATA, device=where)
        alone.fit()
        assert_same(trainer.model, alone.model)
