"""The native engine of CUDA devices: on a GPU, or on the CPU with the kernels in emulation.

Built without either (`make emulate-ops`), there is only its choice to test.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from device_testing import (
    CLIPPED,
    DATA,
    LECTURE,
    SMALL,
    assert_close,
    assert_follows_the_cpu,
    assert_same,
    interrupt,
    needs_kernels,
    on_a_gpu,
    on_cpu,
)
from ops_testing import WHERE
from torch._subclasses.fake_tensor import FakeTensorMode

from pymlp import (
    MLP,
    MLPConfig,
    TrainConfig,
    Trainer,
    _library,
    device_engine,
    device_graph,
    device_inference,
    engines,
)
from pymlp.data import Examples
from pymlp.device_engine import DeviceEngine
from pymlp.native import NativeEngine
from pymlp.stepper import DivergedError
from pymlp.steps import Steps

RULES = [
    SMALL,
    replace(SMALL, optimizer="momentum", weight_decay=0.01, schedule="cosine", warmup_steps=5),
    replace(SMALL, optimizer="adamw", lr=0.01, dtype="float64"),
    CLIPPED,
    replace(CLIPPED, optimizer="adamw", lr=0.01, max_grad_norm=None),
]


@needs_kernels
@pytest.mark.parametrize("config", RULES, ids=lambda c: f"{c.optimizer}-{c.dtype}")
def test_a_run_follows_that_of_the_cpu(config, way, monkeypatch):
    trainer = config.trainer(DATA, device=WHERE)
    assert isinstance(trainer.engine, DeviceEngine)
    assert trainer.engine.persistent == (way == "kernel")
    history = trainer.fit()
    assert_follows_the_cpu(config, trainer.model, history, monkeypatch)


@needs_kernels
@pytest.mark.parametrize("config", [RULES[1], RULES[4]], ids=lambda c: c.optimizer)
def test_the_same_bits_however_the_steps_are_divided(config, way):
    whole = config.trainer(DATA, device=WHERE)
    whole.fit()
    # More steps than a graph has room for, one by one, and any number in between.
    parts = replace(config, eval_every=7, log_every=1).trainer(DATA, device=WHERE)
    parts.fit()
    assert_same(parts.model, whole.model)


@needs_kernels
def test_more_steps_than_a_graph_has_room_for(where, monkeypatch):
    monkeypatch.setattr(device_engine, "_way", lambda *_: (False, "as a graph"))
    monkeypatch.setattr(device_graph, "_MOST_STEPS", 4)
    config = replace(CLIPPED, steps=11, eval_every=0, log_every=11)
    trainer = config.trainer(DATA, device=WHERE)
    trainer.stepper._at_once = 11
    found = trainer.fit()
    monkeypatch.setattr(device_graph, "_MOST_STEPS", 1024)
    expected = config.trainer(DATA, device=WHERE).fit()
    assert torch.equal(found.losses, expected.losses)
    assert torch.equal(found.grad_norms, expected.grad_norms)


@needs_kernels
@pytest.mark.parametrize("config", [RULES[1], RULES[4]], ids=lambda c: c.optimizer)
def test_a_resumed_run_has_the_same_bits(config, way, tmp_path):
    whole = config.trainer(DATA, device=WHERE)
    whole.fit()
    half = replace(config, steps=17).trainer(DATA, device=WHERE)
    half.save(tmp_path / "run")
    half.fit()
    if config.schedule == "constant":
        resumed = Trainer.resume(tmp_path / "run", DATA, steps=30, device=WHERE)
        resumed.fit()
        assert_same(resumed.model, whole.model)


@needs_kernels
@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_from_the_cpu_to_the_device_and_back(optimizer, way, tmp_path, monkeypatch):
    # Batches so large that the stream's blocks on the CPU are fewer steps than the run.
    config = replace(SMALL, optimizer=optimizer, lr=0.01, batch_size=700, eval_every=0)
    exact, _ = on_cpu(config, monkeypatch)
    for until, devices in ((11, ()), (27, (WHERE,)), (30, ())):
        with monkeypatch.context() as context:
            context.setattr(device_engine, "DEVICES", devices)
            place = WHERE if devices else "cpu"
            if until == 11:
                trainer = replace(config, steps=until).trainer(DATA)
                trainer.save(tmp_path / "run")
            else:
                trainer = Trainer.resume(tmp_path / "run", DATA, steps=until, device=place)
            assert isinstance(trainer.engine, DeviceEngine if devices else NativeEngine)
            trainer.fit()
    assert_close(trainer.model, exact.model, 2e-4)


@needs_kernels
@pytest.mark.parametrize("name", ["embedding.weight", "hidden.bias", "output.weight"])
def test_frozen_parameters_stay(name, way, monkeypatch):
    def frozen(device):
        torch.manual_seed(3)
        model = MLP(MLPConfig(len(DATA.vocabulary), n_embd=3, n_hidden=9)).to(device)
        model.get_parameter(name).requires_grad_(False)
        return model

    config = CLIPPED.train_config()
    trainer = Trainer(frozen(WHERE), DATA, config)
    history = trainer.fit()
    with monkeypatch.context() as context:
        context.setattr(device_engine, "DEVICES", ())
        exact = Trainer(frozen("cpu"), DATA, config)
        expected = exact.fit()
    assert torch.equal(trainer.model.get_parameter(name).cpu(), frozen("cpu").get_parameter(name))
    torch.testing.assert_close(history.grad_norms, expected.grad_norms, rtol=2e-5, atol=2e-5)
    assert_close(trainer.model, exact.model, 2e-4)


@needs_kernels
def test_a_run_that_diverges_says_where(way):
    trainer = replace(SMALL, lr=1e38, eval_every=0, log_every=30).trainer(DATA, device=WHERE)
    with pytest.raises(DivergedError, match=r"training diverged: the loss is (nan|inf) at step"):
        trainer.fit()


@needs_kernels
def test_without_memory_for_a_graph_there_is_another_try(where, monkeypatch):
    monkeypatch.setattr(device_engine, "_way", lambda *_: (False, "as a graph"))
    trainer = SMALL.trainer(DATA, device=where)
    with monkeypatch.context() as context:
        interrupt(context, torch, "zeros", raising=torch.OutOfMemoryError)
        with pytest.raises(torch.OutOfMemoryError):
            trainer.stepper.run(20)
    trainer.fit()
    assert trainer.step == SMALL.steps


@needs_kernels
def test_a_graph_has_room_for_a_block_of_indices(where, monkeypatch):
    monkeypatch.setattr(device_engine, "_way", lambda *_: (False, "as a graph"))
    monkeypatch.setattr(device_engine, "BLOCK_INDICES", 60)
    trainer = SMALL.trainer(DATA, device=where)
    trainer.fit()
    assert trainer.engine._graph._step._indices.numel() == 60


@needs_kernels
def test_what_was_computed_before_has_no_gradient_afterwards(way):
    trainer = SMALL.trainer(DATA, device=WHERE)
    logits = trainer.model(DATA.dev.tokens[:4].to(WHERE))
    trainer.fit()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logits.sum().backward()


@needs_kernels
def test_a_stop_is_answered(way):
    trainer = SMALL.trainer(DATA, device=WHERE)
    trainer.stop()
    trainer.fit()
    assert trainer.step == 0
    steps = Steps(torch.zeros((3, 6), dtype=torch.int64), torch.ones(3), torch.ones(3))
    steps.stopping = True
    trainer.engine.run(steps)
    assert steps.done == 0
    trainer.fit()
    assert trainer.step == SMALL.steps


@needs_kernels
def test_parameters_in_new_memory(way):
    whole = SMALL.trainer(DATA, device=WHERE)
    whole.fit()
    trainer = replace(SMALL, steps=40).trainer(DATA, device=WHERE)
    trainer.stepper.run(10)
    while trainer.step < 30:
        for parameter in trainer.model.parameters():
            parameter.data = parameter.data.clone()
        trainer.stepper.run(30)
    assert_same(trainer.model, whole.model)
    trainer.model.double()
    with pytest.raises(RuntimeError, match="changed after the Trainer was made"):
        trainer.stepper.run(40)


# --- which engine, and why ------------------------------------------------------------------------


@needs_kernels
def test_the_reason_says_which_way_and_why(where):
    trainer = SMALL.trainer(DATA, device=where)
    assert (trainer.engine.name, trainer.engine.persistent) == ("native", True)
    assert trainer.engine_reason.startswith(
        "the fastest, in one kernel, since model and batch take"
    )
    trainer = replace(SMALL, n_embd=3000).trainer(DATA, device=where)
    assert not trainer.engine.persistent
    assert "the fastest, as a graph of the fused operators' kernels" in trainer.engine_reason
    assert "of shared memory that a block has" in trainer.engine_reason


@needs_kernels
def test_models_that_are_not_for_it_are_trained_otherwise(where):
    class Other(MLP):
        pass

    model = Other(MLPConfig(len(DATA.vocabulary), n_embd=3, n_hidden=9)).to(where)
    trainer = Trainer(model, DATA, TrainConfig(steps=3))
    assert trainer.engine.name == "autograd"
    assert "native does not apply: the model is a Other, not a plain MLP" in trainer.engine_reason
    with pytest.raises(ValueError, match="engine='native' does not apply: the model is a Other"):
        Trainer(model, DATA, TrainConfig(steps=3, engine="native"))
    linear = torch.nn.Linear(2, 2).to(where)
    assert "the model is a Linear" in DeviceEngine.obstacle(linear, TrainConfig())
    half = replace(SMALL, dtype="bfloat16").trainer(DATA, device=where)
    assert "embedding.weight is torch.bfloat16" in half.engine_reason


@needs_kernels
def test_an_option_that_the_kernels_do_not_know_is_refused(where):
    @dataclass(frozen=True)
    class Newer(MLPConfig):
        n_layers: int = 1

    sizes = {"vocab_size": len(DATA.vocabulary), "n_embd": 3, "n_hidden": 9}
    config = TrainConfig(steps=2)
    unused = Trainer(MLP(Newer(**sizes)).to(where), DATA, config)
    assert isinstance(unused.engine, DeviceEngine)
    model = MLP(Newer(**sizes, n_layers=2)).to(where)
    trainer = Trainer(model, DATA, config)
    assert trainer.engine.name == "autograd"
    assert "the model has n_layers=2, which its kernels do not know" in trainer.engine_reason
    assert not device_inference.applies(model)


@needs_kernels
@pytest.mark.parametrize(
    "option",
    [
        {"sampled_softmax": 5},
        {"sparse_embedding": True},
    ],
    ids=str,
)
def test_a_rule_that_the_kernels_do_not_know_is_refused(option, where):
    ((name, value),) = option.items()
    asked = replace(SMALL, optimizer="momentum", **option)
    trainer = asked.trainer(DATA, device=where)
    assert trainer.engine.name == "autograd"
    assert f"{name}={value} is not among what its kernels do" in trainer.engine_reason
    with pytest.raises(ValueError, match=f"engine='native' does not apply: {name}="):
        replace(asked, engine="native").trainer(DATA, device=where)


def test_without_kernels_for_it_a_device_has_no_native_engine(monkeypatch):
    model = MLP(MLPConfig(27)).to("meta")
    name, reason = engines.choose_engine(model, TrainConfig())
    assert name == "reference"
    assert reason == "native does not apply: embedding.weight is on meta, not on the CPU"
    monkeypatch.setattr(device_engine, "DEVICES", ("meta",))
    _, reason = engines.choose_engine(model, TrainConfig())
    assert reason == "native does not apply: parameters share memory"  # as without memory


def test_a_device_older_than_the_kernels_has_none(monkeypatch):
    monkeypatch.setattr(device_engine, "DEVICES", ("cuda",))
    monkeypatch.setattr(engines, "KERNEL_DEVICES", ("cpu", "cuda"))
    monkeypatch.setattr(_library, "CUDA_ARCHITECTURES", ("sm_90", "sm_103", "compute_90"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    model = MLP(MLPConfig(27))
    with FakeTensorMode():  # which needs no GPU
        for module in (model.embedding, model.hidden, model.output):
            for key, parameter in module.named_parameters():
                there = torch.empty(parameter.shape, device="cuda:1")
                setattr(module, key, torch.nn.Parameter(there))
    name, reason = engines.choose_engine(model, TrainConfig())
    assert name == "reference"
    assert reason == (
        "native does not apply: cuda:1 has compute capability 8.6, the kernels need 9.0 or newer"
    )
    assert not device_inference.applies(model)
    data = Examples(DATA.dev.tokens, DATA.dev.targets)
    for engine, message in (
        ("native", "engine='native' does not apply: cuda:1 has compute capability 8.6"),
        ("autograd", "engine='autograd' has no kernels for the model's device, cuda:1"),
    ):
        with pytest.raises(ValueError, match=message):
            engines.make_engine(engine, model, data, TrainConfig(engine=engine))


# --- what only a GPU can show ---------------------------------------------------------------------


@on_a_gpu
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_the_lectures_model_follows_the_cpu_with_the_same_bits_each_time(
    optimizer, way, monkeypatch
):
    config = replace(LECTURE, optimizer=optimizer, lr=0.01, max_grad_norm=1.0)
    trainers = [config.trainer(DATA, device=WHERE) for _ in range(3)]
    histories = [trainer.fit() for trainer in trainers]
    for trainer, history in zip(trainers, histories, strict=True):
        assert trainer.engine.persistent == (way == "kernel")
        assert torch.equal(history.losses, histories[0].losses)
        assert_same(trainer.model, trainers[0].model)
    _, expected = on_cpu(config, monkeypatch)
    torch.testing.assert_close(histories[0].losses, expected.losses, rtol=1e-3, atol=1e-3)


@on_a_gpu
def test_large_batches_are_steps_of_a_captured_graph(where, monkeypatch):
    config = replace(LECTURE, batch_size=4096, steps=20, lr=0.01)
    trainer = config.trainer(DATA, device=where)
    history = trainer.fit()
    assert not trainer.engine.persistent
    assert trainer.engine._graph._step.captured.graph is not None
    _, expected = on_cpu(config, monkeypatch)
    torch.testing.assert_close(history.losses, expected.losses, rtol=1e-3, atol=1e-3)
