"""Steps that update only some rows of the parameters, by the engines and written out by hand."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pymlp import MLPConfig, TrainConfig, reference
from pymlp.candidates import CandidateSampler, native_candidates
from pymlp.data import Examples
from pymlp.dropout import dropout_masks
from pymlp.engines import make_engine
from pymlp.model import seeded_model
from pymlp.steps import Steps

T, E, STEPS, LR = 3, 5, 8, 0.1
ENGINES = ("native", "autograd", "reference")
OUTPUT_LAYER = ("output.weight", "output.bias", "direct.weight")
# Sizes, batch size and what else is asked for. A quarter of the vocabulary occurs in no context.
CASES = {
    "small": (MLPConfig(40, T, E, 7), 4, {}),
    "large": (MLPConfig(1500, T, E, 7), 300, {}),
    "direct": (MLPConfig(40, T, E, 0, direct=True), 4, {}),
    # Enough work for two threads in every phase.
    "wide": (MLPConfig(3000, T, E, 200), 300, {}),
    "dropout": (MLPConfig(40, T, E, 7), 4, {"dropout": 0.4, "label_smoothing": 0.1}),
}
RULES = {
    "sgd": TrainConfig(optimizer="sgd", weight_decay=0.1),
    "momentum": TrainConfig(optimizer="momentum", momentum=0.8, weight_decay=0.1),
    "adamw": TrainConfig(optimizer="adamw", betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
}


def settings(case, rule="adamw", **options):
    _, batch_size, more = CASES[case]
    return replace(RULES[rule], **(dict(batch_size=batch_size, seed=5, lr=LR) | more | options))


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


def sampler_of(examples, vocab_size, config):
    drawn = native_candidates(examples, vocab_size, config)
    return CandidateSampler(drawn, torch.zeros(0, dtype=torch.float64))


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
    if config.sampled_softmax:
        sampler = sampler_of(examples, sizes.vocab_size, config)
    for k, indices in enumerate(steps.indices):
        tokens, targets = examples.tokens[indices], examples.targets[indices]
        masks = dropout_masks(sizes, config, k, model.embedding.weight)
        rows = {"embedding.weight": tokens.unique()} if config.sparse_embedding else {}
        logits, mean_offset = model(tokens, masks), 0.0
        if config.sampled_softmax:
            words, targets, offsets = sampler.draw(k, targets)
            logits, mean_offset = logits[:, words] + offsets, offsets[targets].mean()
            rows |= dict.fromkeys(OUTPUT_LAYER, words)
        loss = cross_entropy(logits, targets, label_smoothing=config.label_smoothing) + mean_offset
        loss = loss + config.z_loss * logits.exp().sum(1).log().square().mean()
        gradients = torch.autograd.grad(loss, list(named.values()))
        steps.losses[k] = loss.detach()
        steps.grad_norms[k] = norm = nn.utils.get_total_norm(gradients)
        scale = min(1.0, (config.max_grad_norm or torch.inf) / (norm + 1e-6))
        for (name, p), gradient in zip(named.items(), gradients, strict=True):
            of = rows.get(name, slice(None))
            rule_by_hand(config, k + 1, p.data, scale * gradient, states[name], of)
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
