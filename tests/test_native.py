"""The native engine: torch's update rules, its own threads, and what may go wrong while it runs."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn

from pymlp import MLP, MLPConfig, TrainConfig, Trainer
from pymlp.data import Dataset, Examples, Splits, Vocabulary
from pymlp.engines import choose_engine, make_engine
from pymlp.native import NativeEngine
from pymlp.steps import Steps

OPTIMIZERS = {
    "sgd": (TrainConfig(optimizer="sgd"), lambda p: torch.optim.SGD(p, 0.1)),
    "sgd, decay": (
        TrainConfig(optimizer="sgd", weight_decay=0.1),
        lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1),
    ),
    "momentum": (
        TrainConfig(optimizer="momentum", momentum=0.8, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, weight_decay=0.01),
    ),
    "adamw": (
        TrainConfig(optimizer="adamw", betas=(0.8, 0.95), eps=1e-6),
        lambda p: torch.optim.AdamW(p, 0.1, betas=(0.8, 0.95), eps=1e-6),
    ),
}
# (V, T, E, H, B): odd sizes, one of everything, more columns than blocks, a vocabulary larger than
# the hidden layer, batches of many chunks, vocabularies that are divided among threads.
SHAPES = [
    (27, 3, 10, 200, 32),
    (1, 1, 1, 1, 1),
    (7, 2, 5, 33, 9),
    (40, 4, 3, 17, 5000),
    (3, 1, 2, 129, 4097),
    (1500, 2, 3, 10, 70),
    (1100, 1, 5, 20, 1100),
]


def examples_of(n, vocab_size, block_size, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Examples(
        torch.randint(0, vocab_size, (n, block_size), generator=g),
        torch.randint(0, vocab_size, (n,), generator=g),
    )


def make_model(shape, dtype=torch.float64):
    vocab_size, block_size, n_embd, n_hidden, _ = shape
    torch.manual_seed(1)
    return MLP(MLPConfig(vocab_size, block_size, n_embd, n_hidden)).to(dtype)


def make_steps(count, batch_size, n_examples, rate=0.1, seed=3):
    g = torch.Generator().manual_seed(seed)
    return Steps(
        torch.randint(0, n_examples, (count, batch_size), generator=g),
        torch.full((count,), rate, dtype=torch.float64),
        torch.zeros(count, dtype=torch.float64),
        torch.zeros(count, dtype=torch.float64),
    )


def equal(model, other):
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def native(model, examples, batch_size, **settings):
    config = TrainConfig(batch_size=batch_size, engine="native", **settings)
    return make_engine("native", model, examples, config)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("max_norm", [None, 0.05, 100.0])
def test_every_step_is_torchs(shape, optimizer, max_norm):
    config, make_optimizer = OPTIMIZERS[optimizer]
    examples = examples_of(300, shape[0], shape[1])
    model, expected = make_model(shape), make_model(shape)
    torch_optimizer = make_optimizer(list(expected.parameters()))
    engine = native(
        model,
        examples,
        shape[-1],
        max_grad_norm=max_norm,
        **{
            n: getattr(config, n) for n in ("optimizer", "momentum", "weight_decay", "betas", "eps")
        },
    )
    for _ in range(4):
        steps = make_steps(1, shape[-1], len(examples), seed=_)
        engine.run(steps)
        rows = steps.indices[0]
        loss = expected.loss(examples.tokens[rows], examples.targets[rows])
        torch_optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(expected.parameters(), max_norm or float("inf"))
        torch_optimizer.step()
        torch.testing.assert_close(steps.losses[0], loss.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(steps.grad_norms[0], norm, rtol=1e-10, atol=1e-12)
        for found, parameter in zip(model.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(found, parameter, rtol=1e-9, atol=1e-10)
    for path, value in engine.state_dict().items():
        name, _, key = path.rpartition(".")
        state = torch_optimizer.state[dict(expected.named_parameters())[name]]
        torch.testing.assert_close(value, state[key], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bits_do_not_depend_on_threads(shape, dtype):
    before = torch.get_num_threads()
    examples = examples_of(300, shape[0], shape[1])
    found = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        model = make_model(shape, dtype)
        steps = make_steps(5, shape[-1], len(examples))
        native(model, examples, shape[-1], optimizer="adamw", max_grad_norm=0.1).run(steps)
        found.append([steps.losses, steps.grad_norms, *model.state_dict().values()])
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    "name", ["embedding.weight", "hidden.weight", "hidden.bias", "output.weight"]
)
def test_frozen_parameters_stay(name):
    shape = SHAPES[0]
    examples = examples_of(300, shape[0], shape[1])
    model, expected = make_model(shape), make_model(shape)
    for m in (model, expected):
        m.get_parameter(name).requires_grad_(False)
    before = model.get_parameter(name).clone()
    steps, same = make_steps(5, 32, 300), make_steps(5, 32, 300)
    native(model, examples, 32, optimizer="adamw").run(steps)
    make_engine("autograd", expected, examples, TrainConfig(optimizer="adamw")).run(same)
    assert torch.equal(model.get_parameter(name), before)
    torch.testing.assert_close(steps.grad_norms, same.grad_norms)
    for found, parameter in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, parameter, rtol=1e-9, atol=1e-10)


def tied(model):
    model.output.weight = nn.Parameter(model.hidden.weight.data[:27].view(27, -1))


@pytest.mark.parametrize(
    ("change", "message", "instead"),
    [
        (lambda m: setattr(m.hidden, "bias", None), "the parameters are", "autograd"),
        (lambda m: m.half(), "embedding.weight is torch.float16", "autograd"),
        (lambda m: m.to("meta"), "embedding.weight is on meta", "reference"),
        (
            lambda m: setattr(m.hidden, "weight", nn.Parameter(torch.randn(30, 200).T)),
            "hidden.weight is not contiguous",
            "autograd",
        ),
        (
            lambda m: setattr(m.hidden.bias, "data", m.hidden.weight.data[0, :1].expand(200)),
            "hidden.bias is not contiguous",
            "autograd",
        ),
        (
            lambda m: setattr(m.hidden.bias, "data", m.hidden.weight.data.view(-1)[50:250]),
            "parameters share memory",
            "autograd",
        ),
        (
            lambda m: m.hidden.bias.register_hook(lambda g: g * 2),
            "hidden.bias has hooks",
            "autograd",
        ),
    ],
)
def test_models_that_are_not_for_it(change, message, instead):
    model = make_model(SHAPES[0], torch.float32)
    change(model)
    with pytest.raises(ValueError, match=f"engine='native' does not apply: {message}"):
        native(model, examples_of(10, 27, 3), 4)
    name, reason = choose_engine(model, TrainConfig())
    assert name == instead
    assert message in reason


def test_a_model_changed_under_it_is_refused():
    model = make_model(SHAPES[0])
    engine = native(model, examples_of(10, 27, 3), 4)
    model.hidden.weight.data = torch.randn(30, 200, dtype=torch.float64).T
    with pytest.raises(RuntimeError, match=r"changed after .* not contiguous; make a new"):
        engine.run(make_steps(1, 4, 10))


@pytest.mark.parametrize("engine", ["native", "autograd", "reference"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_parameter_frozen_or_thawed_under_it_is_refused(engine, frozen):
    model = make_model(SHAPES[0])
    model.hidden.bias.requires_grad_(not frozen)
    trainer = make_engine(engine, model, examples_of(10, 27, 3), TrainConfig())
    model.hidden.bias.requires_grad_(frozen)
    with pytest.raises(RuntimeError, match=r"requires_grad of hidden.bias was changed after"):
        trainer.run(make_steps(1, 4, 10))


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[5]], ids=str)
def test_clipping_by_a_norm_that_is_not_finite_is_torchs(shape, spoilt):
    examples, steps = examples_of(300, *shape[:2]), make_steps(1, 32, 300)
    model, expected = make_model(shape), make_model(shape)
    for m in (model, expected):
        m.output.weight.data[0, 0] = spoilt
    native(model, examples, 32, max_grad_norm=1.0).run(steps)
    config = TrainConfig(max_grad_norm=1.0)
    make_engine("reference", expected, examples, config).run(make_steps(1, 32, 300))
    for found, parameter in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(found.isfinite(), parameter.isfinite())


def test_indices_out_of_range_end_the_run_before_the_first_step():
    model = make_model(SHAPES[0])
    steps = make_steps(4, 2, 10)
    steps.indices[2] = 10
    with pytest.raises(IndexError, match="index of an example must be from 0 to 9, got 10"):
        native(model, examples_of(10, 27, 3), 2).run(steps)
    assert steps.done == 0
    assert equal(model, make_model(SHAPES[0]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: e.tokens[3].fill_(27), "tokens of example 3 must be from 0 to 26, got 27"),
        (lambda e: e.targets[3].fill_(-1), "target of example 3 must be from 0 to 26, got -1"),
    ],
)
def test_ids_out_of_range_end_the_run_before_the_step(spoil, message):
    model = make_model(SHAPES[0])
    examples = examples_of(10, 27, 3)
    steps = make_steps(4, 2, 10)
    steps.indices[:2] = 0
    steps.indices[2] = 3
    spoil(examples)
    with pytest.raises(IndexError, match=message):
        native(model, examples, 2).run(steps)
    assert steps.done == 2
    same, first = make_model(SHAPES[0]), make_steps(2, 2, 10)
    first.indices[:] = 0
    native(same, examples_of(10, 27, 3), 2).run(first)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True)
    )


def spoil(ids, place, value):
    ids[place] = value


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: spoil(x.targets, 5, 9), r"targets of {} must be .* 0 to 2, got 9 at \[5\]"),
        (lambda x: spoil(x.tokens, (4, 1), -1), r"tokens of {} must be .*, got -1 at \[4, 1\]"),
        (lambda x: Examples(x.tokens[:, :1], x.targets), r"\(N, 2\) .* got \(\d+, 1\)"),
        (lambda x: Examples(x.tokens[:0], x.targets[:0]), r"N of at least 1, got \(0, 2\)"),
    ],
)
def test_hand_made_data_are_checked_before_the_first_step(split, change, message):
    data = Dataset.from_lines(["ab", "ba", "aab", "bba"] * 10, block_size=2)
    made = getattr(data, split)
    table = Examples(made.tokens, made.targets)
    changed = change(table)
    data.__dict__[split] = table if changed is None else changed
    model = MLP(MLPConfig(len(data.vocabulary), block_size=2))
    with pytest.raises(ValueError, match=message.format(split)):
        Trainer(model, data)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("batch_size", [32, 300_000], ids=["between steps", "within a step"])
def test_a_signal_ends_a_run_with_the_state_consistent(batch_size):
    shape = (27, 3, 10, 200, batch_size)
    examples = examples_of(1000, 27, 3)
    model = make_model(shape, torch.float32)
    count = 20_000_000 // batch_size
    steps = make_steps(count, batch_size, 1000)
    engine = native(model, examples, batch_size, optimizer="momentum")
    sent = []

    def interrupt():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGUSR1)

    def handle(signum, frame):
        raise Stopped

    before = signal.signal(signal.SIGUSR1, handle)
    timer = threading.Timer(0.2, interrupt)
    timer.start()
    try:
        with pytest.raises(Stopped):
            engine.run(steps)
        answered = time.perf_counter() - sent[0]
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)
    assert steps.done < count
    assert answered < 1  # a run takes many seconds
    same = make_model(shape, torch.float32)
    again = native(same, examples, batch_size, optimizer="momentum")
    part = slice(0, steps.done)
    again.run(Steps(steps.indices[part], steps.rates[part], torch.zeros(steps.done).double()))
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True)
    )
    assert all(torch.equal(v, engine.state_dict()[k]) for k, v in again.state_dict().items())


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize(("first", "second"), [("native", "autograd"), ("reference", "native")])
def test_a_run_may_change_its_engine(first, second, optimizer):
    """State dicts are the same, so a resumed run may find another engine."""
    shape = SHAPES[0]
    examples = examples_of(300, 27, 3)
    config = TrainConfig(optimizer=optimizer, lr=0.01)
    model, expected = make_model(shape), make_model(shape)
    engine = make_engine(first, model, examples, config)
    engine.run(make_steps(5, 32, 300, rate=0.01))
    other = make_engine(second, model, examples, config)
    other.load_state_dict(engine.state_dict())
    other.run(make_steps(5, 32, 300, rate=0.01, seed=4))
    through = make_engine("reference", expected, examples, config)
    through.run(make_steps(5, 32, 300, rate=0.01))
    through.run(make_steps(5, 32, 300, rate=0.01, seed=4))
    for found, parameter in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, parameter, rtol=1e-9, atol=1e-10)


def test_several_engines_at_once():
    examples = examples_of(300, 27, 3)

    models = [make_model(SHAPES[0], torch.float32) for _ in range(4)]
    engines = [native(model, examples, 32) for model in models]
    workers = [
        threading.Thread(target=engine.run, args=(make_steps(300, 32, 300),)) for engine in engines
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not equal(models[0], make_model(SHAPES[0], torch.float32))
    assert all(equal(model, models[0]) for model in models)


def test_one_engine_runs_once_at_a_time():
    engine = native(make_model(SHAPES[0], torch.float32), examples_of(300, 27, 3), 32)
    long = make_steps(50_000, 32, 300)
    worker = threading.Thread(target=engine.run, args=(long,))
    worker.start()
    time.sleep(0.1)
    steps_done = torch.zeros(1, dtype=torch.int64).numpy()
    with pytest.raises(RuntimeError, match="running already"):
        engine._loop.run(
            parameters=[],
            trained=[],
            first=[],
            second=[],
            indices=long.indices.numpy(),
            rates=long.rates.numpy(),
            losses=long.losses.numpy(),
            grad_norms=None,
            done=steps_done,
            done_before=0,
            threads=1,
            stopping=lambda: False,
        )
    worker.join()
    assert long.done == 50_000


FORKED = """
import os, torch
from pymlp import MLP, MLPConfig, TrainConfig, Trainer
from pymlp.data import Dataset, names
data = Dataset.from_lines(names())
def fit():
    torch.manual_seed(0)
    config = TrainConfig(steps=50, engine="native")
    return Trainer(MLP(MLPConfig(len(data.vocabulary))), data, config).fit()
torch.set_num_threads(2)
before = fit()
if (child := os.fork()) == 0:
    torch.set_num_threads(1)  # PyTorch's own threads are lost
    after = fit()
    os._exit(0 if torch.equal(after.losses, before.losses) and after.evals == before.evals else 1)
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_it_runs_in_a_forked_process():
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "0", run.stderr


def test_batches_larger_than_the_data_and_a_dataset_of_one_line():
    data = Dataset.from_splits(Splits(["a"], ["a"], []), Vocabulary.characters(["a"]), block_size=1)
    model = MLP(MLPConfig(len(data.vocabulary), block_size=1, n_embd=2, n_hidden=4))
    config = TrainConfig(steps=50, batch_size=1000, lr=1.0, engine="native")
    history = Trainer(model, data, config).fit()
    assert history.losses[-1] < history.losses[0]


def test_profile_names_every_phase():
    engine = native(make_model(SHAPES[0]), examples_of(300, 27, 3), 32, max_grad_norm=1.0)
    assert isinstance(engine, NativeEngine)
    engine.run(make_steps(5, 32, 300))
    assert engine.profile == {}
    engine.profiling = True
    engine.run(make_steps(5, 32, 300))
    phases = {"batch", "index", "forward", "softmax", "backward", "dembedding", "norm", "update"}
    assert set(engine.profile) == phases
    assert all(seconds > 0 for seconds in engine.profile.values())
