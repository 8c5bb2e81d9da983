"""Whatever users attach to a model acts as in PyTorch's own loop, or is refused by name."""

import math
import subprocess
import sys
import threading
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, parametrize, prune

import pymlp
from pymlp import MLP, MLPConfig, RunConfig, TrainConfig, Trainer, inference, reference
from pymlp.batches import Batches
from pymlp.data import Dataset

LINES = ["emma", "olivia", "ava", "isabella", "sophia"] * 4
DATA = Dataset.from_lines(LINES)
SIZES = MLPConfig(len(DATA.vocabulary), n_embd=4, n_hidden=8)
STEPS, SEED = 12, 7


class Adapter(nn.Module):
    """A layer and a low-rank term beside it, and no weight of its own name."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False).double()
        self.up = nn.Linear(2, base.out_features, bias=False).double()

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def freeze(model, ran):
    model.hidden.bias.register_hook(lambda g: ran.append(1) or torch.zeros_like(g))


def halve(model, ran):
    def hook(parameter):
        ran.append(1)
        parameter.grad *= 0.5

    model.output.weight.register_post_accumulate_grad_hook(hook)


def adapt(model, ran):
    torch.manual_seed(3)
    model.hidden = Adapter(model.hidden)
    model.hidden.register_forward_pre_hook(lambda *_: ran.append(1))


def pruned(model, ran):
    prune.l1_unstructured(model.hidden, "weight", 0.5)
    model.hidden.register_forward_pre_hook(lambda *_: ran.append(1))


def normalised(model, ran):
    parametrizations.weight_norm(model.output)
    parametrize.register_parametrization(model.embedding, "weight", Doubled())
    parametrize.register_parametrization(model.hidden, "bias", Doubled())
    model.embedding.register_forward_hook(lambda *_: ran.append(1))


def rescaled_layer(model, ran):
    model.hidden.register_forward_hook(lambda m, i, o: ran.append(1) or 0.5 * o)


def rescaled_logits(model, ran):
    model.register_forward_hook(lambda m, i, o: ran.append(1) or 0.5 * o)


def turned_gradient(model, ran):
    model.hidden.register_full_backward_hook(lambda m, i, o: ran.append(1) or (-i[0],))


def turned_gradient_of_the_output(model, ran):
    model.output.register_full_backward_pre_hook(lambda m, o: ran.append(1) or (-o[0],))


def own_forward(model, ran):
    layer = model.hidden
    forward = layer.forward
    layer.forward = lambda x: ran.append(1) or forward(x) + 1


def own_forward_of_the_model(model, ran):
    forward = type(model).forward
    model.forward = types.MethodType(lambda m, x: ran.append(1) or 3 * forward(m, x), model)


def padded(model, ran):
    ran.append(1)
    model.embedding.padding_idx = 0


def wide(model, ran):
    """Other sizes than the config says."""
    ran.append(1)
    torch.manual_seed(3)
    model.hidden = nn.Linear(12, 20).double()
    model.output = nn.Linear(20, SIZES.vocab_size).double()


GRADIENT_ONLY = [freeze, halve]
TRAINING = [*GRADIENT_ONLY, turned_gradient, turned_gradient_of_the_output, padded]
CALLED = [adapt, pruned, normalised, rescaled_layer, rescaled_logits, own_forward, wide]
ATTACHMENTS = [*TRAINING, *CALLED, own_forward_of_the_model]
REASONS = {
    freeze: "hidden.bias has hooks",
    halve: "output.weight has hooks",
    adapt: "hidden is a Adapter, not a Linear",
    pruned: "hidden has a forward_pre_hook",
    normalised: "embedding is a ParametrizedEmbedding",
    rescaled_layer: "hidden has a forward_hook",
    rescaled_logits: "the model has a forward_hook",
    turned_gradient: "hidden has a full_backward_hook",
    turned_gradient_of_the_output: "output has a full_backward_pre_hook",
    own_forward: "hidden has a forward of its own",
    own_forward_of_the_model: "the model has a forward of its own",
    padded: "embedding has padding_idx=0",
    wide: r"hidden.weight has shape \(20, 12\), not \(8, 12\)",
}


def make(attach, ran, kind=MLP):
    torch.manual_seed(1)
    model = kind(SIZES).double()
    attach(model, ran)
    return model


def by_hand(attach):
    """The lecture's loop on the plain model, which has the same attached."""
    model = make(attach, [], reference.MLP)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    batches = Batches(len(DATA.train), 4, seed=SEED)
    losses = []
    for step in range(STEPS):
        (rows,) = batches.at(step, 1)
        loss = F.cross_entropy(model(DATA.train.tokens[rows]), DATA.train.targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, torch.tensor(losses, dtype=torch.float64)


def config(engine="auto", **settings):
    settings = {"optimizer": "momentum", "eval_every": 0} | settings
    return TrainConfig(steps=STEPS, batch_size=4, seed=SEED, engine=engine, **settings)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("attach", ATTACHMENTS)
def test_training_is_that_of_the_loop_by_hand(attach):
    expected, losses = by_hand(attach)
    for engine in ("auto", "autograd", "reference"):
        ran = []
        model = make(attach, ran)
        trainer = Trainer(model, DATA, config(engine))
        ran *= attach in (padded, wide)  # these have nothing that runs
        history = trainer.fit()
        assert ran
        close(history.losses, losses)
        for p, q in zip(model.parameters(), expected.parameters(), strict=True):
            close(p, q)
        if attach is freeze:
            assert torch.equal(model.hidden.bias, make(attach, []).hidden.bias)


@pytest.mark.parametrize("attach", ATTACHMENTS)
def test_native_engine_and_run_directory_refuse_by_name(attach, tmp_path):
    with pytest.raises(ValueError, match=f"engine='native' does not apply: .*{REASONS[attach]}"):
        Trainer(make(attach, []), DATA, config("native"))
    trainer = Trainer(make(attach, []), DATA, config())
    assert trainer.engine.name == "autograd"
    with pytest.raises(ValueError, match="Trainer: a run directory"):
        trainer.save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("attach", [*CALLED, own_forward_of_the_model])
@pytest.mark.parametrize("kind", [MLP, reference.MLP])
def test_use_is_that_of_the_called_model(attach, kind):
    ran = []
    model, plain = make(attach, ran, kind), make(attach, [], reference.MLP)
    tokens, targets = DATA.train.tokens, DATA.train.targets
    with torch.no_grad():
        logits = plain(tokens)
        losses = F.cross_entropy(logits, targets, reduction="none")
        uses = {
            "forward": (lambda: model(tokens), logits),
            "loss": (lambda: model.loss(tokens, targets), losses.mean()),
            "evaluate": (lambda: pymlp.evaluate(model, DATA.train), losses.mean().item()),
            "token_losses": (lambda: inference.token_losses(model, tokens, targets), losses),
            "log_normalisers": (
                lambda: inference.log_normalisers(model, tokens),
                logits.logsumexp(1),
            ),
            "token_logits": (
                lambda: inference.token_logits(model, tokens, targets),
                logits.gather(1, targets[:, None])[:, 0],
            ),
            "score": (
                lambda: [x.log_prob for x in pymlp.score(model, DATA.vocabulary, LINES[:5])],
                [x.log_prob for x in pymlp.score(plain, DATA.vocabulary, LINES[:5])],
            ),
            "sample": (
                lambda: pymlp.sample(model, DATA.vocabulary, 5, temperature=0),
                pymlp.sample(plain, DATA.vocabulary, 5, temperature=0),
            ),
        }
        for name, (use, expected) in uses.items():
            ran.clear()
            found = use()
            assert ran or attach is wide, name
            assert found == pytest.approx(expected) if name == "score" else True
            if name != "score":
                (close if isinstance(found, torch.Tensor) else _equal)(found, expected)


def _equal(found, expected):
    assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


def test_neighbours_are_those_of_the_called_embedding():
    model = make(lambda m, _: None, [])
    shift = torch.randn(4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    model.embedding.register_forward_hook(lambda m, i, o: o + 3 * shift)
    rows = F.normalize(model.embedding.weight.detach() + 3 * shift, dim=1)
    found = {n.token: n.similarity for n in pymlp.nearest(model, DATA.vocabulary, "e")}
    for token, similarity in found.items():
        ids = DATA.vocabulary.ids
        assert similarity == pytest.approx(float(rows[ids["e"]] @ rows[ids.get(token, 0)]))


def test_a_hook_of_all_modules_acts():
    seen = []
    handle = register_module_forward_hook(lambda m, i, o: seen.append(type(m).__name__))
    try:
        trainer = Trainer(make(lambda m, _: None, []), DATA, config())
        assert "torch.nn has a hook of all modules" in trainer.engine_reason
        trainer.stepper.run(1)
    finally:
        handle.remove()
    assert set(seen) == {"Embedding", "Linear", "MLP"}


def test_a_hook_attached_while_it_trains_is_refused_by_native():
    trainer = Trainer(make(lambda m, _: None, []), DATA, config("native"))
    trainer.stepper.run(1)
    rescaled_layer(trainer.model, [])
    with pytest.raises(RuntimeError, match="hidden has a forward_hook; make a new Trainer"):
        trainer.fit()


class Halved(MLP):
    """A subclass with a forward of its own, and no loss."""

    def forward(self, tokens):
        return 0.5 * super().forward(tokens)


@pytest.mark.parametrize("engine", ["auto", "autograd", "reference"])
def test_the_forward_of_a_subclass_is_what_its_loss_is_made_of(engine):
    expected, losses = by_hand(rescaled_logits)
    torch.manual_seed(1)
    model = Halved(SIZES).double()
    close(Trainer(model, DATA, config(engine)).fit().losses, losses)
    assert pymlp.evaluate(model, DATA.dev) == pytest.approx(pymlp.evaluate(expected, DATA.dev))
    with pytest.raises(TypeError, match="unexpected keyword argument 'dropout'"):
        Trainer(model, DATA, config(engine, dropout=0.1)).fit()


def test_rows_of_a_parameter_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match=r"sparse_embedding updates rows of embedding.weight"):
        Trainer(make(normalised, []), DATA, config("autograd", sparse_embedding=True))


# --- models of other kinds ------------------------------------------------------------------------


class LooksAlike(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = SIZES
        self.embedding = nn.Embedding(SIZES.vocab_size, SIZES.n_embd)


USES = {
    "Trainer": lambda model: Trainer(model, DATA),
    "evaluate": lambda model: pymlp.evaluate(model, DATA.dev),
    "sample": lambda model: pymlp.sample(model, DATA.vocabulary, 1),
    "score": lambda model: pymlp.score(model, DATA.vocabulary, LINES),
    "nearest": lambda model: pymlp.nearest(model, DATA.vocabulary, "e"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2)), "got Sequential: copy its parameters into one"),
        (LooksAlike(), "got LooksAlike: copy its parameters"),
        (nn.DataParallel(MLP(SIZES)), "got DataParallel: pass model.module, which is one"),
        (torch.compile(MLP(SIZES)), "got OptimizedModule: pass model._orig_mod, which is one"),
        (MLP, r"got the class MLP: make a model, such as MLP\("),
        ("run", "got str: make one"),
    ],
    ids=str,
)
def test_other_models_are_refused_by_name(use, model, message):
    expected = rf"^{use}: the model must be a pymlp.MLP or pymlp.reference.MLP, {message}"
    with pytest.raises(TypeError, match=expected):
        USES[use](model)


def test_ranks_are_not_trained_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = "Trainer: this is one of 2 processes .* not supported yet: start one"
    with pytest.raises(RuntimeError, match=message):
        Trainer(MLP(SIZES), DATA)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        Trainer(MLP(SIZES), DATA)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
        with pytest.raises(RuntimeError, match="one of 3 processes"):
            Trainer(MLP(SIZES), DATA)
    finally:
        torch.distributed.destroy_process_group()


# --- around the model -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", "autograd", "reference"])
def test_every_engine_trains_without_gradients_and_none_in_inference_mode(engine):
    trainers = [Trainer(make(lambda m, _: None, []), DATA, config(engine)) for _ in range(2)]
    expected = trainers[0].fit()
    with torch.no_grad():
        assert torch.equal(trainers[1].fit().losses, expected.losses)
    third = Trainer(make(lambda m, _: None, []), DATA, config(engine))
    with torch.inference_mode():
        made_there = make(lambda m, _: None, [])
        for use in (third.fit, lambda: Trainer(third.model, DATA)):
            with pytest.raises(RuntimeError, match=r"in torch.inference_mode\(\)"):
                use()
    with pytest.raises(RuntimeError, match="nor a model that was made there"):
        Trainer(made_there, DATA)
    assert torch.equal(third.fit().losses, expected.losses)


def test_models_made_in_threads_are_those_of_their_seeds():
    configs = [RunConfig(seed=seed, n_embd=6, n_hidden=50, direct=True) for seed in range(8)]
    sizes = MLPConfig(len(DATA.vocabulary), 3, 6, 50, direct=True)
    expected = []
    for seed in range(8):
        torch.manual_seed(seed)
        expected.append(MLP(sizes))
    before = torch.get_rng_state()
    found = [[] for _ in configs]

    def build(i):
        for _ in range(20):
            found[i].append(configs[i].build_model(DATA))

    threads = [threading.Thread(target=build, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.get_rng_state(), before)
    for models, model in zip(found, expected, strict=True):
        assert len(models) == 20
        for other in models:
            assert all(map(torch.equal, other.parameters(), model.parameters()))


@pytest.mark.parametrize("direct", [False, True])
def test_the_model_is_exported_without_operators_of_pymlp(direct):
    model = MLP(MLPConfig(11, n_embd=4, n_hidden=9, direct=direct))
    tokens = torch.randint(11, (7, 3), generator=torch.Generator().manual_seed(1))
    program = torch.export.export(model, (tokens,))
    assert "pymlp" not in str(program.graph)
    for exported in (
        program.module(),
        torch.jit.trace(model, tokens),
        torch.fx.symbolic_trace(model),
    ):
        torch.testing.assert_close(exported(tokens), model(tokens))


def run_python(code):
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "done", run.stderr


WATCHED = """
import sys, threading, pymlp
from pymlp.data import Dataset, names
sys.setswitchinterval(1e-5)
data = Dataset.from_lines(names()[:300])
model = pymlp.MLP(pymlp.MLPConfig(len(data.vocabulary), n_hidden=8))
config = pymlp.TrainConfig(
    steps=2000, batch_size=4, eval_every=20, checkpoint_every=10, average=200, engine="native"
)
trainer = pymlp.Trainer(model, data, config)
done = threading.Event()
def watch():
    while not done.is_set():
        model.loss(data.train.tokens[:8], data.train.targets[:8])
        model(data.train.tokens[:8])
        pymlp.score(model, data.vocabulary, names()[:3])
watcher = threading.Thread(target=watch)
watcher.start()
trainer.fit()
done.set()
watcher.join()
print("done")
"""


def test_another_thread_may_use_the_model_while_it_trains():
    """Whoever recorded an operation on a parameter would wait for ever: see `isfinite()`."""
    run_python(WATCHED)


FORKED = """
import os, torch, pymlp
from pymlp.data import Dataset, names
data = Dataset.from_lines(names())
model = pymlp.MLP(pymlp.MLPConfig(27))
def use(normalized):
    pymlp.log_z(model, data.vocabulary, names())
    return pymlp.score(model, data.vocabulary, names(), normalized=normalized)
torch.set_num_threads(2)
before = [use(True), use(False)]
torch.rand(10**6).exp()  # starts PyTorch's own threads
if (child := os.fork()) == 0:
    os._exit(0 if [use(True), use(False)] == before else 1)
print("done" if os.waitpid(child, 0)[1] == 0 else "differs")
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_process_scores():
    run_python(FORKED)


def fresh(kind=MLP):
    torch.manual_seed(SEED)
    return kind(SIZES)


def test_what_is_attached_after_the_trainer_was_made_acts_in_its_evaluations():
    """The average is a copy of the model, and the reference engine has its own view of it."""

    def even(tokens, dropout=None):
        return torch.zeros(len(tokens), len(DATA.vocabulary), requires_grad=True)

    for options in ({"engine": "autograd", "average": 2}, {"engine": "reference"}):
        trainer = Trainer(
            fresh(), DATA, TrainConfig(steps=4, batch_size=4, eval_every=2, **options)
        )
        trainer.model.output.register_forward_hook(lambda module, inputs, output: output * 0)
        assert trainer.fit().evals[-1].dev == pytest.approx(math.log(len(DATA.vocabulary)))
        trainer = Trainer(fresh(), DATA, TrainConfig(steps=4, batch_size=4, **options))
        trainer.model.forward = even
        assert trainer.fit().losses[0].item() == pytest.approx(math.log(len(DATA.vocabulary)))


def test_a_checkpoint_refuses_what_save_refuses(tmp_path):
    trainer = Trainer(fresh(), DATA, TrainConfig(steps=4, batch_size=4, engine="autograd"))
    trainer.save(tmp_path / "run")
    trainer.model.output.register_forward_hook(lambda module, inputs, output: output * 0.1)
    with pytest.raises(ValueError, match="output has a forward_hook"):
        trainer.fit()


def test_a_call_of_its_own_is_honoured_everywhere():
    class Doubled(MLP):
        def __call__(self, *arguments, **options):
            return 2 * super().__call__(*arguments, **options)

    model = fresh(Doubled)
    tokens, targets = DATA.dev.tokens, DATA.dev.targets
    expected = F.cross_entropy(model(tokens), targets).item()
    assert model.loss(tokens, targets).item() == pytest.approx(expected)
    assert pymlp.evaluate(model, DATA.dev) == pytest.approx(expected)


def test_layers_with_a_mode_are_evaluated_in_eval_mode():
    model = fresh()
    model.hidden = torch.nn.Sequential(model.hidden, torch.nn.Dropout(0.5))
    trainer = Trainer(model, DATA, TrainConfig(steps=1, batch_size=4))
    assert trainer.evaluate("dev") == trainer.evaluate("dev")
    assert model.hidden[1].training


@pytest.mark.parametrize("options", [{"optimizer": "adamw"}, {"max_grad_norm": 1.0}])
def test_sparse_gradients_are_refused_where_torch_has_no_rule(options):
    model = fresh()
    model.embedding.sparse = True
    with pytest.raises(ValueError, match="embedding has sparse=True"):
        Trainer(model, DATA, TrainConfig(steps=1, **options))


def test_an_average_of_what_cannot_be_copied_is_refused():
    model = fresh()
    prune.l1_unstructured(model.hidden, "weight", 0.5)
    with pytest.raises(ValueError, match="average does not apply: hidden has a forward_pre_hook"):
        Trainer(model, DATA, TrainConfig(steps=1, average=2))
