"""Direct connections and what else a run may ask for: each against loops written out by hand."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pymlp import reference
from pymlp.batches import Batches
from pymlp.callbacks import Callback
from pymlp.config import TrainConfig
from pymlp.data import Dataset, names
from pymlp.dropout import dropout_masks
from pymlp.evaluate import evaluate
from pymlp.inference import token_losses
from pymlp.model import MLP, MLPConfig, lecture_init, seeded_model
from pymlp.rundir import RunDirectory
from pymlp.trainer import Trainer

DATA = Dataset.from_lines(names()[:200])
V = len(DATA.vocabulary)
SIZES = {
    "hidden": MLPConfig(V, n_embd=2, n_hidden=8),
    "both": MLPConfig(V, n_embd=2, n_hidden=8, direct=True),
    "direct": MLPConfig(V, n_embd=2, n_hidden=0, direct=True),
}
OBJECTIVE = {"label_smoothing": 0.1, "z_loss": 0.05, "dropout": 0.4}


@pytest.fixture(autouse=True)
def one_thread(set_num_threads):
    set_num_threads(1)


def train(sizes="hidden", callbacks=(), **config):
    settings = {"steps": 40, "batch_size": 4, "seed": 7, "engine": "reference", "lr": 0.2} | config
    model = seeded_model(SIZES[sizes], seed=1).double()
    trainer = Trainer(model, DATA, TrainConfig(**settings), callbacks)
    return trainer, trainer.fit()


def parameters_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same(found, expected, **tolerance):
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **tolerance)


# --- direct connections ---------------------------------------------------------------------------


def test_the_output_sees_the_embeddings():
    model = seeded_model(SIZES["both"], seed=1).double()
    tokens = DATA.train.tokens[:50]
    x = torch.cat([model.embedding.weight[tokens[:, t]] for t in range(3)], dim=1)
    h = torch.tanh(x @ model.hidden.weight.T + model.hidden.bias)
    logits = model.output.bias + x @ model.direct.weight.T + h @ model.output.weight.T
    torch.testing.assert_close(model(tokens), logits)
    loss = F.cross_entropy(logits, DATA.train.targets[:50], reduction="none")
    torch.testing.assert_close(token_losses(model, tokens, DATA.train.targets[:50]), loss)
    assert evaluate(model, DATA.train) == pytest.approx(
        F.cross_entropy(model(DATA.train.tokens), DATA.train.targets).item()
    )


@pytest.mark.parametrize("sizes", SIZES)
def test_parameters_are_counted_and_named(sizes):
    model = MLP(SIZES[sizes])
    assert SIZES[sizes].n_params == sum(p.numel() for p in model.parameters())
    assert list(model.state_dict()) == [
        *("embedding.weight", "hidden.weight", "hidden.bias", "output.weight", "output.bias"),
        *(["direct.weight"] if sizes != "hidden" else []),
    ]
    reference.MLP(SIZES[sizes]).load_state_dict(model.state_dict())


def test_the_other_parameters_begin_as_without():
    with_direct = parameters_of(seeded_model(SIZES["both"], seed=1))
    with_direct.pop("direct.weight")
    assert_same(with_direct, parameters_of(seeded_model(SIZES["hidden"], seed=1)), rtol=0, atol=0)
    model = MLP(SIZES["both"])
    lecture_init(model)
    assert not model.direct.weight.any()


def test_only_direct_connections_make_up_for_a_hidden_layer():
    with pytest.raises(ValueError, match="n_hidden must be at least 1, got 0"):
        MLPConfig(V, n_hidden=0)
    with pytest.raises(TypeError, match="direct must be True or False, got 1"):
        MLPConfig(V, direct=1)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("objective", [{}, OBJECTIVE, {"z_loss": 0.1}, {"label_smoothing": 0.2}])
def test_fused_and_plain_model_agree(sizes, objective):
    config = TrainConfig(batch_size=50, dropout=objective.get("dropout", 0.0))
    options = {key: value for key, value in objective.items() if key != "dropout"}
    fused = seeded_model(SIZES[sizes], seed=1).double()
    plain = reference.MLP(SIZES[sizes]).double()
    plain.load_state_dict(fused.state_dict())
    masks = dropout_masks(SIZES[sizes], config, 3, fused.embedding.weight)
    batch = DATA.train.tokens[:50], DATA.train.targets[:50]
    losses, gradients = [], []
    for model in (fused, plain):
        loss = model.loss(*batch, dropout=masks, **options)
        losses.append(loss)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    torch.testing.assert_close(losses[0], losses[1])
    for fused_gradient, gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(fused_gradient, gradient)


def test_the_logits_of_a_batch_are_never_held():
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    config = MLPConfig(8192, block_size=2, n_embd=2, n_hidden=4, direct=True)
    model = MLP(config)
    tokens = torch.randint(8192, (8192, 2))
    masks = dropout_masks(config, TrainConfig(batch_size=8192, dropout=0.5), 0, tokens.float())
    try:
        clear.write_text("5")  # the peak is what is held now
    except OSError as error:
        pytest.skip(f"this system does not tell the peak of memory: {error}")

    def peak():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])

    before = peak()
    model.loss(tokens, tokens[:, 0], z_loss=0.1, label_smoothing=0.1, dropout=masks).backward()
    assert peak() - before < 8192 * 8192 * 4 / 4


# --- the objective --------------------------------------------------------------------------------


def loop_by_hand(sizes, optimizer_of, steps=40, dropout=0.0, label_smoothing=0.0, z_loss=0.0):
    """The run of `train`, with dropout by torch's own formula on the masks' pattern."""
    model = reference.MLP(SIZES[sizes]).double()
    model.load_state_dict(seeded_model(SIZES[sizes], seed=1).double().state_dict())
    optimizer = optimizer_of(model)
    batches = Batches(len(DATA.train), 4, seed=7)
    config = TrainConfig(batch_size=4, seed=7, dropout=dropout)
    losses = []
    for step in range(steps):
        (rows,) = batches.at(step, 1)
        x = model.embedding(DATA.train.tokens[rows]).flatten(1)
        masks = dropout_masks(SIZES[sizes], config, step, x)
        if masks is not None:
            x = torch.where(masks.input > 0, x / (1 - dropout), 0.0)
        h = torch.tanh(model.hidden(x))
        if masks is not None:
            h = torch.where(masks.hidden > 0, h / (1 - dropout), 0.0)
        logits = model.output(h) + (0 if model.direct is None else model.direct(x))
        targets = DATA.train.targets[rows]
        loss = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        loss = loss + z_loss * logits.exp().sum(1).log().square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses, model


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.2)


@pytest.mark.parametrize("engine", ["native", "autograd", "reference"])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("objective", [{}, OBJECTIVE])
def test_engines_minimise_what_is_asked_for(engine, sizes, objective):
    expected, model = loop_by_hand(sizes, sgd, **objective)
    trainer, history = train(sizes, engine=engine, **objective)
    assert history.losses.tolist() == pytest.approx(expected, rel=1e-9)
    assert_same(parameters_of(trainer.model), parameters_of(model), rtol=1e-9, atol=1e-9)
    # Evaluations are of the whole network, and plain.
    plain = F.cross_entropy(model(DATA.dev.tokens), DATA.dev.targets).item()
    assert history.evals[-1].dev == pytest.approx(plain, rel=1e-9)


def test_masks_depend_on_seed_and_step_alone():
    def masks(seed=1, step=2, rate=0.4):
        config = TrainConfig(batch_size=500, seed=seed, dropout=rate)
        return dropout_masks(SIZES["hidden"], config, step, torch.zeros(1))

    assert masks(rate=0.0) is None
    first = masks()
    assert [mask.shape for mask in first] == [(500, 6), (500, 8)]
    assert all(torch.equal(a, b) for a, b in zip(first, masks(), strict=True))
    for other in (masks(seed=2), masks(step=3)):
        assert not torch.equal(first.input, other.input)
    for mask in first:
        assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / 0.6).item()}
        assert (mask == 0).float().mean().item() == pytest.approx(0.4, abs=0.03)  # 3 deviations


@pytest.mark.parametrize("engine", ["native", "autograd", "reference"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_biases_may_be_spared_the_decay(engine, optimizer):
    def optimizer_of(model):
        weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
        biases = [model.hidden.bias, model.output.bias]
        groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
        if optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=0.2)
        return torch.optim.SGD(groups, lr=0.2, momentum=0.9 if optimizer == "momentum" else 0.0)

    expected, model = loop_by_hand("both", optimizer_of)
    trainer, history = train(
        "both", engine=engine, optimizer=optimizer, weight_decay=0.1, decay_biases=False
    )
    assert history.losses.tolist() == pytest.approx(expected, rel=1e-9)
    assert_same(parameters_of(trainer.model), parameters_of(model), rtol=1e-9, atol=1e-9)


# --- early stopping -------------------------------------------------------------------------------


class Evaluations(Callback):
    def __init__(self):
        self.dev = []

    def on_eval(self, trainer, evaluation):
        self.dev.append(evaluation.dev)


def test_patience_ends_the_run_and_keeps_the_best(tmp_path):
    followed = Evaluations()
    trainer = Trainer(
        seeded_model(SIZES["hidden"], seed=1),
        DATA,
        TrainConfig(steps=2000, batch_size=4, lr=3.0, eval_every=10, patience=4, seed=7),
        [followed],
    )
    trainer.save(tmp_path / "run")
    history = trainer.fit()
    best = followed.dev.index(min(followed.dev))
    assert len(followed.dev) == best + 1 + 4
    assert trainer.exhausted
    assert trainer.step == 10 * len(followed.dev) < 2000
    assert history.best.step == 10 * (best + 1)
    kept = RunDirectory.open(tmp_path / "run").model(best=True)
    assert evaluate(kept, DATA.dev) == min(followed.dev)
    again = Trainer.resume(tmp_path / "run", DATA)
    assert again.exhausted
    again.fit()
    assert again.step == trainer.step
    assert len(again.history.evals) == len(followed.dev)


def test_patience_needs_evaluations():
    with pytest.raises(ValueError, match="patience needs evaluations: set eval_every above 0"):
        TrainConfig(patience=3, eval_every=0)


# --- averages -------------------------------------------------------------------------------------


class Snapshots(Callback):
    """The parameters after every step: the trainer must be asked to log each."""

    def __init__(self):
        self.parameters = []

    def on_log(self, trainer, loss):
        self.parameters.append(parameters_of(trainer.model))


def test_the_average_is_that_of_its_snapshots():
    followed = Snapshots()
    trainer, history = train(
        callbacks=[followed], steps=1000, average=300, log_every=1, eval_every=1000
    )
    expected = followed.parameters[2]
    for count, step in enumerate(range(6, 1001, 3), 2):
        weight = max(1 / 100, 1 / count)
        expected = {
            name: (1 - weight) * mean + weight * followed.parameters[step - 1][name]
            for name, mean in expected.items()
        }
    assert_same(parameters_of(trainer.average), expected)
    assert not torch.equal(trainer.average.output.bias, trainer.model.output.bias)
    assert history.evals[-1].dev == evaluate(trainer.average, DATA.dev)
    assert train()[0].average is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_averages_are_saved_and_survive_interruptions(tmp_path, dtype):
    """The last interruption falls between a step and what is due after it."""

    class Stop(Callback):
        stops = itertools.chain([3, 20, 62, 100], itertools.repeat(1000))
        at = next(stops)

        def on_steps(self, trainer, losses):
            if trainer.step >= self.at:
                self.at = next(Stop.stops)
                trainer.stop()

    def begin(path, callbacks=()):
        model = seeded_model(SIZES["both"], seed=1).to(dtype)
        config = TrainConfig(
            steps=120, batch_size=4, seed=7, average=400, eval_every=50, engine="autograd"
        )
        trainer = Trainer(model, DATA, config, callbacks)
        trainer.save(path)
        return trainer

    whole = begin(tmp_path / "whole")
    whole.fit()
    stop = Stop()
    trainer = begin(tmp_path / "parts", [stop])
    trainer.fit()
    while trainer.step < 120:
        trainer = Trainer.resume(tmp_path / "parts", DATA, [stop])
        trainer.fit()
    for name in ("state", "model", "best"):
        file = f"{name}.safetensors"
        assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    run = RunDirectory.open(tmp_path / "whole")
    assert_same(parameters_of(run.model()), parameters_of(whole.average), rtol=0, atol=0)
    assert evaluate(run.model(), DATA.dev) == whole.history.evals[-1].dev
    assert run.model().embedding.weight.dtype == torch.float32


def test_a_checkpoint_between_a_step_and_its_snapshot_has_the_snapshot(tmp_path):
    class Interrupt(Callback):
        def on_steps(self, trainer, losses):
            if trainer.step == 8:
                trainer.save(tmp_path / "run")
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(callbacks=[Interrupt()], average=400)
    resumed = Trainer.resume(tmp_path / "run", DATA)
    resumed.fit()
    whole, _ = train(average=400)
    assert_same(parameters_of(resumed.average), parameters_of(whole.average), rtol=0, atol=0)


# --- engines and files ----------------------------------------------------------------------------


# As the first release wrote it.
BEFORE = """\
[data]
sha256 = ""

[model]
vocab_size = 27
block_size = 3
n_embd = 2
n_hidden = 8

[train]
steps = 40
batch_size = 4
lr = 0.2
schedule = "constant"
lr_drop_factor = 0.1
warmup_steps = 0
lr_min = 0.0
optimizer = "sgd"
momentum = 0.9
betas = [
    0.9,
    0.999,
]
eps = 1e-08
seed = 7
log_grad_norm = false
engine = "reference"
eval_every = 10000
checkpoint_every = 10000
log_every = 1000
"""


def test_runs_from_before_these_options_open(tmp_path):
    trainer, _ = train()
    trainer.save(tmp_path / "run")
    (tmp_path / "run" / "config.toml").write_text(BEFORE)
    run = RunDirectory.open(tmp_path / "run")
    assert run.train_config() == trainer.config
    assert run.model_config() == SIZES["hidden"]


@pytest.mark.parametrize("sizes", ["both", "direct"])
def test_a_run_with_direct_connections_is_resumed(tmp_path, sizes):
    trainer, _ = train(sizes, engine="autograd", optimizer="adamw", decay_biases=False, **OBJECTIVE)
    trainer.save(tmp_path / "run")
    resumed = Trainer.resume(tmp_path / "run", DATA, steps=80)
    resumed.fit()
    whole, _ = train(
        sizes, engine="autograd", optimizer="adamw", decay_biases=False, steps=80, **OBJECTIVE
    )
    assert_same(parameters_of(resumed.model), parameters_of(whole.model), rtol=0, atol=0)
