"""`train_many` on a device: models side by side in launches of the training kernel."""

from dataclasses import replace

import pytest
from device_testing import DATA, LECTURE, SMALL, assert_same, needs_kernels, on_a_gpu

from pymlp import device_engine, train_many
from pymlp.many import TrainingInterrupted

MANY = [
    SMALL,
    replace(SMALL, seed=5, lr=0.3, steps=45),
    replace(SMALL, seed=6, n_hidden=33, n_embd=2, optimizer="adamw", lr=0.01, init="lecture"),
    replace(SMALL, dtype="float64", max_grad_norm=0.5, eval_every=0, batch_size=3),
    replace(SMALL, lr=1e38),
    replace(SMALL, n_embd=3000, steps=2, eval_every=0),
    replace(SMALL, engine="autograd", steps=5),
]


@needs_kernels
def test_each_of_many_has_the_bits_of_the_same_model_alone(where):
    seen = []
    results = train_many(MANY, DATA, 2, seen.append, device=where)
    assert [result.config for result in results] == MANY
    for config, result in zip(MANY, results, strict=True):
        if config.lr == 1e38:
            assert "training diverged: the loss is" in result.error
            continue
        trainer = config.trainer(DATA, device=where)
        history = trainer.fit()
        assert_same(result.model, trainer.model)
        assert (result.step, result.error) == (config.steps, None)
        assert (result.train_loss, result.dev_loss) == history.evals[-1][1:]
        assert result.best_dev_loss == history.best.dev
    assert [result.engine for result in results] == ["native"] * 6 + ["autograd"]
    assert seen[-1].step == sum(result.step for result in results)
    assert list(seen[-1].results) == list(results)


@needs_kernels
def test_all_models_of_a_dtype_share_a_launch_and_the_data(where, monkeypatch):
    launches = []
    together = device_engine.run_together

    def run_together(runs):
        launches.append([id(engine.tokens) for engine, _ in runs])
        together(runs)

    monkeypatch.setattr("pymlp.many.run_together", run_together)
    train_many([replace(SMALL, seed=seed) for seed in range(5)], DATA, 2, device=where)
    assert {len(launch) for launch in launches} == {5}
    assert len({examples for launch in launches for examples in launch}) == 1


@needs_kernels
def test_ctrl_c_stops_many(where):
    def progress(_):
        raise KeyboardInterrupt

    configs = [replace(SMALL, steps=1), replace(SMALL, steps=10_000_000)]
    with pytest.raises(TrainingInterrupted, match="1 of 2 models done") as interrupted:
        train_many(configs, DATA, 2, progress, device=where)
    first, second = interrupted.value.results
    assert (first.error, first.step) == (None, 1)
    assert second.error == f"interrupted at step {second.step}"


@needs_kernels
def test_a_launch_that_fails_leaves_the_results_there_are(where, monkeypatch):
    together = device_engine.run_together

    def run_together(runs):
        if len(runs) == 1:  # when the shorter one has ended
            raise MemoryError("out of memory")
        together(runs)

    monkeypatch.setattr("pymlp.many.run_together", run_together)
    results = train_many([replace(SMALL, steps=1), SMALL], DATA, 2, device=where)
    assert [result.error for result in results] == [None, "MemoryError: out of memory"]
    assert [result.step for result in results] == [1, 1]


@on_a_gpu
def test_more_models_than_a_gpu_has_multiprocessors(where):
    configs = [replace(LECTURE, steps=50, seed=seed) for seed in range(300)]
    results = train_many(configs, DATA, device=where)
    for seed in (0, 150, 299):
        alone = configs[seed].trainer(DATA, device=where)
        alone.fit()
        assert_same(results[seed].model, alone.model)
