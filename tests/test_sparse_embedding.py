"""`TrainConfig.sparse_embedding`, against the rule written out by hand and torch's SparseAdam."""

from dataclasses import replace

import pytest
import torch
from rows_testing import (
    CASES,
    ENGINES,
    LR,
    RULES,
    assert_close,
    examples_of,
    same_bits,
    settings,
    steps_of,
    train,
    train_by_hand,
)
from torch import nn

from pymlp import MLPConfig, Trainer, reference
from pymlp.data import Dataset, names
from pymlp.model import seeded_model


@pytest.fixture(autouse=True)
def one_thread(set_num_threads):
    set_num_threads(1)


def sparse(case, rule="adamw", **options):
    return settings(case, rule, sparse_embedding=True, **options)


@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", CASES)
def test_only_rows_that_occur_are_updated(case, rule, max_norm):
    config = sparse(case, rule, max_grad_norm=max_norm)
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
    config = sparse(case, max_grad_norm=max_norm)
    assert same_bits(train(case, "native", config), train(case, "native", config, threads=2))


@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_plain_sgd_is_the_same_with_it(case, engine, max_norm):
    config = sparse(case, "sgd", max_grad_norm=max_norm, weight_decay=None)
    dense = replace(config, sparse_embedding=False)
    assert same_bits(train(case, engine, config), train(case, engine, dense))


@pytest.mark.parametrize("case", ["small", "large"])
def test_the_embedding_goes_as_with_torchs_sparse_adam(case):
    """Whose eps is added before the bias correction, so it must be too small to matter."""
    config = sparse(case, weight_decay=0.0, eps=1e-30)
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
    config = sparse("small", max_grad_norm=max_norm)
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
    config = sparse("small", rule, engine=engine, steps=40)
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
