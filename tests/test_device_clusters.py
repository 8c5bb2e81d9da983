"""Training by clusters of blocks, as test_device_engine.py by single ones: on a GPU or emulated."""

from dataclasses import replace

import pytest
import torch
from device_testing import CLIPPED, DATA, SMALL, assert_close, assert_same, needs_kernels, on_cpu

from pymlp import device_engine, train_many
from pymlp._library import ops

# By the size of the cluster that each takes, on a device whose blocks have 227 KiB.
SHORT = replace(SMALL, steps=6, eval_every=0, log_every=1)
SIZES = {
    2: replace(SHORT, n_hidden=1500),
    4: replace(SHORT, n_hidden=2500, optimizer="momentum", weight_decay=0.01, init="lecture"),
    8: replace(SHORT, n_hidden=5000, optimizer="adamw", lr=0.01, max_grad_norm=0.5),
}


@pytest.fixture
def where(where):
    """The device, which has to have clusters if by its age it should."""
    if where == "cuda" and torch.cuda.get_device_capability()[0] not in (9, 10):
        pytest.skip("needs a device that has clusters of blocks of 227 KiB: an H100, a B200")
    for dtype in (torch.float32, torch.float64):
        like = torch.empty(0, device=where, dtype=dtype)
        cluster, *_ = ops.training_shared_bytes(like, 27, 3, 10, 20_000, 32)
        assert cluster == 8
    return where


@needs_kernels
@pytest.mark.parametrize("size", SIZES)
def test_a_run_by_a_cluster_follows_that_of_the_cpu(size, where, monkeypatch):
    config = SIZES[size]
    trainer = config.trainer(DATA, device=where)
    assert trainer.engine_reason.startswith(
        f"the fastest, in one kernel by a cluster of {size} blocks, since model and batch take in "
        "each "
    )
    history = trainer.fit()
    exact, expected = on_cpu(config, monkeypatch)
    torch.testing.assert_close(history.losses, expected.losses, rtol=2e-5, atol=2e-5)
    assert_close(trainer.model, exact.model, 2e-4)


@needs_kernels
def test_a_cluster_has_the_same_bits_however_the_steps_are_divided(where):
    whole = SIZES[2].trainer(DATA, device=where)
    whole.fit()
    parts = SIZES[2].trainer(DATA, device=where)
    for until in (1, 3, 6):
        while parts.step < until:
            parts.stepper.run(until)
    assert_same(parts.model, whole.model)


@needs_kernels
def test_single_blocks_and_clusters_beside_each_other(where, monkeypatch):
    launches = []
    together = device_engine.run_together

    def run_together(runs):
        launches.append(len(runs))
        together(runs)

    configs = [replace(CLIPPED, steps=6), *SIZES.values(), replace(SIZES[2], seed=5), SHORT]
    alone = [config.trainer(DATA, device=where) for config in configs]
    for trainer in alone:
        trainer.fit()
    monkeypatch.setattr("pymlp.many.run_together", run_together)
    results = train_many(configs, DATA, 2, device=where)
    assert max(launches) == len(configs)
    for trainer, result in zip(alone, results, strict=True):
        assert result.error is None
        assert_same(result.model, trainer.model)


@needs_kernels
def test_a_model_has_the_same_bits_alone_and_beside_others(where):
    config = replace(CLIPPED, n_hidden=200, batch_size=32, steps=3, eval_every=0)
    alone = config.trainer(DATA, device=where)
    assert alone.engine_reason.endswith("; alone it is given 4 blocks")
    alone.fit()
    # Models of so few hidden units are not divided: so each of the two has a block.
    beside = train_many([SMALL, config], DATA, 2, device=where)[1]
    assert_same(beside.model, alone.model)


@needs_kernels
def test_what_has_no_room_in_a_cluster_goes_by_the_graph(where):
    trainer = replace(SHORT, n_hidden=20_000).trainer(DATA, device=where)
    assert not trainer.engine.persistent
    assert "as a graph of the fused operators' kernels, since" in trainer.engine_reason
    assert "would take in each of 8 blocks " in trainer.engine_reason
