"""The trainer: against loops written out by hand, and what it records and tells."""

import copy
import json
import math
import sys

import pytest
import torch
import torch.nn.functional as F

from pymlp import reference
from pymlp.batches import Batches
from pymlp.callbacks import Callback
from pymlp.config import ENGINES, OPTIMIZERS, TrainConfig
from pymlp.data import Dataset, Examples, names
from pymlp.evaluate import evaluate
from pymlp.functional import mlp_cross_entropy
from pymlp.model import MLP, MLPConfig, lecture_init
from pymlp.stepper import DivergedError
from pymlp.trainer import Trainer

DATA = Dataset.from_lines(names()[:300])
SIZES = MLPConfig(len(DATA.vocabulary), n_embd=2, n_hidden=8)


@pytest.fixture(autouse=True)
def one_thread(set_num_threads):
    """These models are far too small to share; beside other processes, waiting would cost more."""
    set_num_threads(1)


def make_model(dtype=torch.float32):
    model = MLP(SIZES)
    lecture_init(model, seed=1)
    return model.to(dtype)


def train(model=None, callbacks=(), **config):
    settings = {"steps": 40, "batch_size": 4, "seed": 7, "engine": "reference"} | config
    trainer = Trainer(model or make_model(), DATA, TrainConfig(**settings), callbacks)
    return trainer, trainer.fit()


def same_parameters(model, other):
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- engines --------------------------------------------------------------------------------------


def by_hand(optimizer_of, steps=40, batch_size=4):
    """The lecture's loop on the plain model."""
    model = reference.MLP(SIZES)
    lecture_init(model, seed=1)
    optimizer = optimizer_of(model.parameters())
    generator = torch.Generator().manual_seed(7)
    losses = []
    for _ in range(steps):
        ix = torch.randint(0, len(DATA.train), (batch_size,), generator=generator)
        loss = F.cross_entropy(model(DATA.train.tokens[ix]), DATA.train.targets[ix])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize(
    ("config", "optimizer_of"),
    [
        ({"lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
        ({"optimizer": "momentum"}, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (
            {"optimizer": "momentum", "momentum": 0.5, "weight_decay": 0.1},
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5, weight_decay=0.1),
        ),
        ({"optimizer": "adamw", "lr": 0.01}, lambda p: torch.optim.AdamW(p, lr=0.01)),
        (
            {"optimizer": "adamw", "betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.5},
            lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.5),
        ),
    ],
)
def test_reference_engine_is_the_lectures_loop(config, optimizer_of):
    expected_model, expected_losses = by_hand(optimizer_of)
    trainer, history = train(**config)
    assert history.losses.tolist() == expected_losses
    assert same_parameters(trainer.model, expected_model)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "reference"])
def test_engines_follow_the_same_trajectory(engine, optimizer):
    settings = {"steps": 200, "optimizer": optimizer, "lr": 0.02, "schedule": "step"}
    _, expected = train(make_model(torch.float64), **settings)
    _, history = train(make_model(torch.float64), engine=engine, **settings)
    torch.testing.assert_close(history.losses, expected.losses, rtol=1e-9, atol=1e-9)
    assert history.evals[-1].dev == pytest.approx(expected.evals[-1].dev, rel=1e-9)


@pytest.mark.parametrize(("dtype", "lecture"), [(torch.float32, False), (torch.float64, True)])
def test_the_first_thousand_losses_of_the_engines_agree(dtype, lecture):
    """In float32 not from the lecture's own start, which is chaotic: see docs/performance.md."""
    data = Dataset.from_lines(names())
    losses, dev_losses = [], []
    for engine in ("reference", "autograd", "native"):
        torch.manual_seed(0)
        model = MLP(MLPConfig(len(data.vocabulary))).to(dtype)
        if lecture:
            lecture_init(model)
        config = TrainConfig(steps=1000, schedule="constant", engine=engine, eval_every=0)
        history = Trainer(model, data, config).fit()
        losses.append(history.losses)
        dev_losses.append(history.evals[-1].dev)
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(losses[2], losses[0], rtol=0, atol=1e-4)
    assert dev_losses[1:] == pytest.approx(dev_losses[:1] * 2, abs=1e-4)


def test_each_loss_from_the_lectures_own_start_is_the_references():
    """In float32 two trajectories part; at the parameters of one, the losses of both are equal."""
    data = Dataset.from_lines(names()).train
    model = reference.MLP(MLPConfig(27))
    lecture_init(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses, fused = [], []
    for rows in Batches(len(data), 32, seed=7).at(0, 256):
        batch = data.tokens[rows], data.targets[rows]
        loss = model.loss(*batch)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        fused.append(mlp_cross_entropy(*batch, *model.parameters()).item())
        optimizer.step()
    assert losses[0] > 20  # where saturated units and confident mistakes amplify rounding
    torch.testing.assert_close(torch.tensor(fused), torch.tensor(losses), rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_frozen_parameters_stay(engine):
    model = make_model()
    model.embedding.weight.requires_grad_(False)
    trainer, _ = train(model, engine=engine, optimizer="adamw")
    assert torch.equal(model.embedding.weight, make_model().embedding.weight)
    assert not torch.equal(model.hidden.weight, make_model().hidden.weight)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_nothing_to_train():
    model = make_model().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter with requires_grad=True"):
        train(model)


@pytest.mark.parametrize("engine", ENGINES)
def test_rates_follow_the_schedule(engine):
    short, _ = train(engine=engine, steps=13)
    long, _ = train(engine=engine, schedule="step", lr_drop_step=13, lr_drop_factor=0.0)
    assert same_parameters(short.model, long.model)


# --- what is measured -----------------------------------------------------------------------------


def test_history():
    trainer, history = train(steps=45, eval_every=20)
    assert [evaluation.step for evaluation in history.evals] == [20, 40, 45]
    assert history.losses.shape == (45,)
    assert history.losses.dtype == torch.float64
    assert history.best == min(history.evals, key=lambda evaluation: evaluation.dev)
    assert history.evals[-1].train == trainer.evaluate("train")
    assert history.us_per_step == pytest.approx(1e6 * history.seconds / 45)


def test_metrics_and_files(tmp_path):
    trainer = Trainer(
        make_model(),
        DATA,
        TrainConfig(
            steps=25, batch_size=4, engine="reference", log_every=10, eval_every=20, schedule="step"
        ),
    )
    trainer.save(tmp_path / "run")
    history = trainer.fit()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(record["step"], "loss" in record) for record in records] == [
        (10, True),
        (20, True),
        (20, False),
        (25, True),
        (25, False),
    ]
    assert [record["lr"] for record in records if "lr" in record] == [0.1, 0.01, 0.01]
    assert records[3]["loss"] == history.losses[20:].mean().item()
    assert records[2]["dev_loss"] == history.evals[0].dev
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        ".lock",
        "best.safetensors",
        "config.toml",
        "losses.f64",
        "metrics.jsonl",
        "model.safetensors",
        "state.safetensors",
        "vocab.json",
    ]


def test_train_is_left_out_of_evaluations():
    _, history = train(steps=6, eval_every=2, eval_train="no")
    assert [math.isnan(evaluation.train) for evaluation in history.evals] == [True] * 3
    assert all(math.isfinite(evaluation.dev) for evaluation in history.evals)


def test_train_is_evaluated_on_an_even_sample_where_it_is_large(tmp_path, monkeypatch):
    n = len(DATA.train)
    monkeypatch.setattr(sys.modules["pymlp.evaluate"], "SAMPLE_SIZE", 100)
    trainer = Trainer(make_model(), DATA, TrainConfig(steps=1, eval_train="sample"))
    trainer.save(tmp_path / "run")
    history = trainer.fit()
    tokens, targets = DATA.train.take(torch.tensor([i * n // 100 for i in range(100)]))
    assert history.evals[-1].train == evaluate(trainer.model, Examples(tokens, targets))
    records = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert [r["train_sample"] for r in records if "dev_loss" in r] == [100]
    monkeypatch.setattr(sys.modules["pymlp.evaluate"], "SAMPLE_SIZE", n)
    trainer, history = train(steps=1, eval_train="sample")
    assert history.evals[-1].train == trainer.evaluate("train")


def test_settings_of_older_runs_are_understood():
    for old, new in ((True, "full"), (False, "no")):
        assert TrainConfig(eval_train=old) == TrainConfig(eval_train=new)


def test_callbacks_follow_evaluations():
    seen = []

    class Follower(Callback):
        def on_eval_progress(self, trainer, split, done, total):
            seen.append((split, done, total))

    Trainer(make_model(), DATA, TrainConfig(steps=1), [Follower()]).fit()
    sizes = {"train": len(DATA.train), "dev": len(DATA.dev)}
    assert seen == [(split, size, size) for split, size in sizes.items()]


def test_evaluate_is_exact():
    model = make_model()
    exact = make_model(torch.float64)
    with torch.no_grad():
        expected = F.cross_entropy(exact(DATA.dev.tokens), DATA.dev.targets).item()
    assert evaluate(exact, DATA.dev, batch_size=7) == pytest.approx(expected, rel=1e-12)
    for batch_size in (1, 7, len(DATA.dev), 10**6):
        assert evaluate(model, DATA.dev, batch_size) == pytest.approx(expected, rel=1e-6)


def test_evaluate_gives_the_same_bits_on_any_number_of_threads(set_num_threads):
    model, found = make_model(), set()
    for threads in (1, 2, 3):
        set_num_threads(threads)
        found.add(evaluate(model, Dataset.from_lines(names()).train))
    assert len(found) == 1


def test_evaluate_errors():
    none = Examples(DATA.dev.tokens[:0], DATA.dev.targets[:0])
    with pytest.raises(ValueError, match="no examples"):
        evaluate(make_model(), none)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        evaluate(make_model(), DATA.dev, 0)
    trainer, _ = train(steps=1)
    with pytest.raises(ValueError, match="split must be train, dev or test, got 'valid'"):
        trainer.evaluate("valid")


def test_the_test_split_is_read_only_when_asked_for():
    data = Dataset.from_lines(names()[:300])
    trainer = Trainer(make_model(), data, TrainConfig(steps=5, engine="reference"))
    trainer.fit()
    assert "test" not in vars(data)
    assert trainer.evaluate("test") > 0
    assert "test" in vars(data)


class Diary(Callback):
    """Writes down what it is told."""

    def __init__(self):
        self.entries = []
        self.losses = []

    def on_steps(self, trainer, losses):
        self.losses += losses.tolist()

    def on_log(self, trainer, loss):
        self.entries.append(("log", trainer.step))

    def on_eval(self, trainer, evaluation):
        self.entries.append(("eval", evaluation.step))

    def on_checkpoint(self, trainer, path):
        self.entries.append(("checkpoint", trainer.step, path.name))

    def on_end(self, trainer):
        self.entries.append(("end", trainer.step))


def test_callbacks(tmp_path):
    diary = Diary()
    config = TrainConfig(
        steps=9, engine="reference", log_every=4, eval_every=8, checkpoint_every=6, batch_size=4
    )
    trainer = Trainer(make_model(), DATA, config, [diary])
    trainer.save(tmp_path / "run")
    history = trainer.fit()
    assert diary.losses == history.losses.tolist()
    assert diary.entries == [
        ("log", 4),
        ("checkpoint", 6, "run"),
        ("log", 8),
        ("eval", 8),
        ("log", 9),
        ("eval", 9),
        ("checkpoint", 9, "run"),
        ("end", 9),
    ]


def test_a_callback_may_stop_the_training():
    class Patience(Callback):
        def on_eval(self, trainer, evaluation):
            if evaluation.step == 20:
                trainer.stop()

    trainer, history = train(callbacks=[Patience()], eval_every=10)
    assert trainer.step == len(history.losses) == 20
    assert len(trainer.fit().losses) == 20 + 20


class Interrupt(Callback):
    """Ctrl-C at each of the given steps, once, just before what follows the log."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def on_log(self, trainer, loss):
        if trainer.step in self.steps:
            self.steps.remove(trainer.step)
            raise KeyboardInterrupt


def test_what_an_interruption_came_before_is_made_up_for(tmp_path):
    settings = {"log_every": 10, "eval_every": 20, "checkpoint_every": 20}
    config = TrainConfig(steps=40, batch_size=4, engine="reference", **settings)
    found = []
    for steps in ((), (20, 40)):
        path = tmp_path / str(len(steps))
        trainer = Trainer(make_model(), DATA, config, [Interrupt(*steps)])
        trainer.save(path)
        for step in steps:
            with pytest.raises(KeyboardInterrupt):
                trainer.fit()
            assert (trainer.step, len(trainer.history.evals)) == (step, step // 20 - 1)
        trainer.fit()
        found.append({file.name: file.read_bytes() for file in path.iterdir()})
    assert found[0] == found[1]


# --- what goes wrong ------------------------------------------------------------------------------


class Poison(Callback):
    """Spoils a parameter after the given step."""

    def __init__(self, name, step):
        self.name, self.step = name, step

    def on_steps(self, trainer, losses):
        if trainer.step == self.step:
            with torch.no_grad():
                trainer.model.get_parameter(self.name).view(-1)[0] = math.inf


@pytest.mark.parametrize(
    ("poisoned", "every", "message"),
    [
        (("output.bias", 20), {"log_every": 20}, "the loss is nan at step 20"),
        (("output.bias", 20), {"checkpoint_every": 20}, "output.bias is not finite after step 20"),
        # An infinite hidden bias leaves every loss finite.
        (("hidden.bias", 20), {"log_every": 20, "eval_every": 20}, "hidden.bias .* after step 20"),
        (("hidden.bias", 40), {}, "hidden.bias is not finite after step 40"),
    ],
)
def test_divergence_keeps_the_last_good_checkpoint(tmp_path, poisoned, every, message):
    settings = {"eval_every": 0, "checkpoint_every": 0} | every
    config = TrainConfig(steps=40, batch_size=4, engine="reference", **settings)
    for saving in (True, False):
        trainer = Trainer(make_model(), DATA, config, [Poison(*poisoned)])
        if saving:
            trainer.save(tmp_path / "run")
        with pytest.raises(DivergedError, match=f"training diverged: {message}"):
            trainer.fit()
    resumed = Trainer.resume(tmp_path / "run", DATA)
    assert resumed.step == 0
    assert same_parameters(resumed.model, make_model())


def test_a_trainer_that_is_stopped_checks_the_parameters():
    class Stop(Callback):
        def on_steps(self, trainer, losses):
            trainer.stop()

    trainer = Trainer(
        make_model(), DATA, TrainConfig(engine="reference"), [Poison("hidden.bias", 1), Stop()]
    )
    with pytest.raises(DivergedError, match="not finite after step 1"):
        trainer.fit()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_rate_too_high_is_named(engine):
    with pytest.raises(DivergedError, match=r"at step \d+ \(learning rate 1e\+30: try a lower one"):
        train(engine=engine, lr=1e30)


def tied():
    model = MLP(MLPConfig(len(DATA.vocabulary), n_embd=8, n_hidden=8))
    model.output.weight = model.embedding.weight
    return model


def without_bias():
    model = make_model()
    model.hidden.bias = None
    return model


class Scaled(MLP):
    """A model of one more parameter."""

    def __init__(self):
        super().__init__(SIZES)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def loss(self, tokens, targets):
        return self.scale * super().loss(tokens, targets)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (tied, "two of this model share memory"),
        (without_bias, "got MLP with embedding.weight, hidden.weight, output.weight, output.bias"),
        (Scaled, "got Scaled with scale, .*: save its state_dict instead"),
    ],
)
def test_changed_models_are_trained_but_make_no_run_directory(tmp_path, make, message):
    torch.manual_seed(0)
    model = make().double()
    expected = copy.deepcopy(model)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1)
    batches = Batches(len(DATA.train), 4, seed=7)
    for step in range(5):
        (rows,) = batches.at(step, 1)
        loss = expected.loss(DATA.train.tokens[rows], DATA.train.targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    trainer, _ = train(model, engine="autograd", steps=5)
    for found, parameter in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, parameter, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=message):
        trainer.save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [tied, without_bias])
def test_changed_models_train_alike_in_every_engine(make):
    found = []
    for engine in ("autograd", "reference"):
        torch.manual_seed(0)
        _, history = train(make().double(), engine=engine, steps=20)
        found.append(history.losses)
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_a_subclass_trains_alike_in_every_engine():
    found = []
    for engine in ("autograd", "reference"):
        torch.manual_seed(0)
        model = Scaled().double()
        _, history = train(model, engine=engine, steps=20)
        assert model.scale.item() != 1
        found.append(history.losses)
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_model_and_data_must_fit():
    with pytest.raises(ValueError, match="vocab_size of the model is 5, that of the data is"):
        Trainer(MLP(MLPConfig(5)), DATA)
    with pytest.raises(ValueError, match="block_size of the model is 4, that of the data is 3"):
        Trainer(MLP(MLPConfig(len(DATA.vocabulary), block_size=4)), DATA)
    few = Dataset.from_lines(["a", "b", "c"])
    with pytest.raises(ValueError, match=r"must not be empty, got .*0 of dev.* at least 10"):
        Trainer(MLP(MLPConfig(len(few.vocabulary))), few)


@pytest.mark.parametrize("engine", ENGINES)
def test_global_state_is_left_alone(engine, tmp_path):
    model = make_model()
    before = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    trainer, _ = train(model, engine=engine)
    trainer.save(tmp_path / "run")
    Trainer.resume(tmp_path / "run", DATA).fit()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.get_num_threads(), torch.get_default_dtype())
    assert model.training
    assert torch.is_grad_enabled()
