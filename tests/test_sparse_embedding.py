"""`TrainConfig.sparse_embedding`, against the rule written out by hand and torch's SparseAdam."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pymlp import MLPConfig, TrainConfig, Trainer, reference
from pymlp.data import Dataset, Examples, names
from pymlp.dropout import dropout_masks
from pymlp.engines import make_engine
from pymlp.model import seeded_model
from pymlp.steps import Steps

T, E, STEPS, LR = 3, 5, 8, 0.1
ENGINES = ("native", "autograd", "reference")
# Sizes, batch size and what else is asked for. A quarter of the vocabulary occurs in no context.
CASES = {
    "small": (MLPConfig(40, T, E, 7), 4, {}),
    "large": (MLPConfig(1500, T, E, 7), 300, {}),
    "direct": (MLPConfig(40, T, E, 0, direct=True), 4, {}),
    "dropout": (MLPConfig(40, T, E, 7), 4, {"dropout": 0.4, "label_smoothing": 0.1}),
}
RULES = {
    "sgd": TrainConfig(optimizer="sgd", weight_decay=0.1),
    "momentum": TrainConfig(optimizer="momentum", momentum=0.8, weight_decay=0.1),
    "adamw": TrainConfig(optimizer="adamw", betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
}


@pytest.fixture(autouse=True)
def one_thread(set_num_threads):
    set_num_threads(1)


def settings(case, rule="adamw", **options):
    _, batch_size, more = CASES[case]
    config = replace(RULES[rule], batch_size=batch_size, sparse_embedding=True, seed=5, lr=LR)
    return replace(config, **more, **options)


def examples_of(case):
    V = CASES[case][0].vocab_size
    g = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, V * 3 // 4, (1000, T), generator=g)
    return Examples(tokens, torch.randint(0, V, (1000,), generator=g))


def steps_of(case):
    g = torch.Generator().manual_seed(3)
    indices = torch.randint(0, 1000, (STEPS, CASES[case][1]), generator=g)
    losses, norms = torch.zeros(2, STEPS, dtype=torch.float64)
    return Steps(indices, torch.full_like(losses, LR), losses, norms)


def train(case, engine, config, threads=1, frozen=()):
    """The parameters, the optimizer's state of them, and the steps with their results."""
    model = seeded_model(CASES[case][0], seed=1).double()
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    engine = make_engine(engine, model, examples_of(case), config)
    if engine.name == "native":
        engine.threads = threads
    steps = steps_of(case)
    engine.run(steps)
    state = {path: x for path, x in engine.state_dict().items() if not path.endswith(".step")}
    return dict(model.named_parameters()), state, steps


def rule_by_hand(config, number, p, gradient, state, rows):
    """Update number `number` of some rows of a parameter and of its state."""
    value, g = p[rows], gradient[rows]
    if config.optimizer == "adamw":
        beta1, beta2 = config.betas
        m, v = (state.setdefault(key, torch.zeros_like(p)) for key in ("exp_avg", "exp_avg_sq"))
        m[rows] = beta1 * m[rows] + (1 - beta1) * g
        v[rows] = beta2 * v[rows] + (1 - beta2) * g * g
        corrected = m[rows] / (1 - beta1**number), v[rows] / (1 - beta2**number)
        value = value * (1 - LR * config.weight_decay)
        p[rows] = value - LR * corrected[0] / (corrected[1].sqrt() + config.eps)
        return
    g = g + config.weight_decay * value
    if config.optimizer == "momentum":
        buffer = state.setdefault("momentum_buffer", torch.zeros_like(p))
        buffer[rows] = config.momentum * buffer[rows] + g
        g = buffer[rows]
    p[rows] = value - LR * g


def train_by_hand(case, config):
    sizes = CASES[case][0]
    model = reference.MLP(sizes).double()
    model.load_state_dict(seeded_model(sizes, seed=1).double().state_dict())
    named = dict(model.named_parameters())
    states = {name: {} for name in named}
    examples, steps = examples_of(case), steps_of(case)
    for k, indices in enumerate(steps.indices):
        tokens, targets = examples.tokens[indices], examples.targets[indices]
        masks = dropout_masks(sizes, config, k, model.embedding.weight)
        loss = model.loss(tokens, targets, label_smoothing=config.label_smoothing, dropout=masks)
        gradients = torch.autograd.grad(loss, list(named.values()))
        steps.losses[k] = loss.detach()
        steps.grad_norms[k] = norm = nn.utils.get_total_norm(gradients)
        scale = min(1.0, (config.max_grad_norm or torch.inf) / (norm + 1e-6))
        for (name, p), gradient in zip(named.items(), gradients, strict=True):
            rows = tokens.unique() if name == "embedding.weight" else slice(None)
            rule_by_hand(config, k + 1, p.data, scale * gradient, states[name], rows)
    state = {f"{name}.{key}": x for name, kept in states.items() for key, x in kept.items()}
    return named, state, steps


def assert_close(found, expected):
    def results(run):
        parameters, state, steps = run
        return {**parameters, **state, "losses": steps.losses, "norms": steps.grad_norms}

    found, expected = results(found), results(expected)
    assert set(found) == set(expected)
    for name, x in found.items():
        torch.testing.assert_close(x, expected[name], rtol=1e-9, atol=1e-10)


def same_bits(found, other):
    return all(
        torch.equal(x, y[name])
        for tensors, y in zip(found[:2], other[:2], strict=True)
        for name, x in tensors.items()
    )


@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", CASES)
def test_only_rows_that_occur_are_updated(case, rule, max_norm):
    config = settings(case, rule, max_grad_norm=max_norm)
    expected = train_by_hand(case, config)
    before = seeded_model(CASES[case][0], seed=1).double().embedding.weight
    unseen = torch.arange(len(before) * 3 // 4, len(before))
    for engine in ENGINES:
        found = train(case, engine, config)
        assert_close(found, expected)
        parameters, state, _ = found
        assert torch.equal(parameters["embedding.weight"][unseen], before[unseen])
        for path, kept in state.items():
            if path.startswith("embedding.weight."):
                assert not kept[unseen].any()


@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("case", CASES)
def test_the_bits_do_not_depend_on_threads(case, max_norm):
    config = settings(case, max_grad_norm=max_norm)
    assert same_bits(train(case, "native", config), train(case, "native", config, threads=2))


@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_plain_sgd_is_the_same_with_it(case, engine, max_norm):
    config = settings(case, "sgd", max_grad_norm=max_norm, weight_decay=None)
    dense = replace(config, sparse_embedding=False)
    assert same_bits(train(case, engine, config), train(case, engine, dense))


@pytest.mark.parametrize("case", ["small", "large"])
def test_the_embedding_goes_as_with_torchs_sparse_adam(case):
    """Whose eps is added before the bias correction, so it must be too small to matter."""
    config = settings(case, weight_decay=0.0, eps=1e-30)
    sizes = CASES[case][0]
    model = reference.MLP(sizes).double()
    model.load_state_dict(seeded_model(sizes, seed=1).double().state_dict())
    model.embedding.sparse = True
    embedding, *others = model.parameters()
    optimizers = [
        torch.optim.SparseAdam([embedding], LR, config.betas, config.eps),
        torch.optim.AdamW(others, LR, config.betas, config.eps, weight_decay=0.0),
    ]
    examples = examples_of(case)
    for indices in steps_of(case).indices:
        model.zero_grad()
        tokens = examples.tokens[indices]
        logits = model.output(torch.tanh(model.hidden(model.embedding(tokens).flatten(1))))
        nn.functional.cross_entropy(logits, examples.targets[indices]).backward()
        assert embedding.grad.is_sparse
        for optimizer in optimizers:
            optimizer.step()
    for engine in ENGINES:
        found = train(case, engine, config)[0]["embedding.weight"]
        torch.testing.assert_close(found, embedding, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("name", ["embedding.weight", "hidden.weight", "output.weight"])
def test_frozen_parameters_stay(name, max_norm):
    config = settings("small", max_grad_norm=max_norm)
    native, autograd = (
        train("small", engine, config, frozen=[name]) for engine in ("native", "autograd")
    )
    before = seeded_model(CASES["small"][0], seed=1).double().get_parameter(name)
    assert torch.equal(native[0][name], before)
    assert_close(native, autograd)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rule", RULES)
def test_a_run_is_gone_on_with(tmp_path, rule, engine):
    data = Dataset.from_lines(names()[:200])
    config = settings("small", rule, engine=engine, steps=40)
    sizes = MLPConfig(len(data.vocabulary), n_embd=2, n_hidden=8)
    Trainer(seeded_model(sizes, seed=1), data, replace(config, steps=20)).save(tmp_path)
    for steps in (20, 40):
        resumed = Trainer.resume(tmp_path, data, steps=steps)
        assert resumed.config.sparse_embedding
        resumed.fit()
    whole = Trainer(seeded_model(sizes, seed=1), data, config)
    whole.fit()
    for found, parameter in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(found, parameter)
