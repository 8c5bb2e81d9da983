"""What every engine owes the PyTorch around it."""

import pytest
import torch

from pymlp import RunConfig, sample, score, train_many
from pymlp.config import ENGINES
from pymlp.data import Dataset
from pymlp.ngram import NeuralBigram

DATA = Dataset.from_lines(["emma", "olivia", "ava", "isabella", "sophia"] * 4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
def test_a_loss_of_before_the_steps_has_no_gradient_after_them(engine, max_grad_norm):
    """Not even a wrong one: autograd has to know that its tensors were changed."""
    config = RunConfig(
        steps=2, batch_size=4, n_hidden=8, eval_every=0, engine=engine, max_grad_norm=max_grad_norm
    )
    trainer = config.trainer(DATA)
    loss = trainer.model(DATA.train.tokens[:5]).square().sum()
    trainer.fit()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("engine", ENGINES)
def test_torchs_default_device_decides_nothing(engine):
    config = RunConfig(
        steps=20, batch_size=4, n_hidden=8, eval_every=10, engine=engine, dropout=0.1, average=5
    )
    trainer, expected = config.trainer(DATA), config.trainer(DATA)
    with torch.device("meta"):
        history = trainer.fit()
    assert torch.equal(history.losses, expected.fit().losses)
    assert history.evals == expected.history.evals


@pytest.mark.parametrize("init", ["torch", "lecture", "scaled", "unigram"])
def test_it_decides_neither_how_a_model_begins_nor_what_it_says(init):
    config = RunConfig(n_hidden=8, init=init)
    expected = config.build_model(DATA)
    line = ["emma"]
    with torch.device("meta"):
        model = config.build_model(DATA)
        scores = [score.log_prob for score in score(model, DATA.vocabulary, line)]
        texts = sample(model, DATA.vocabulary, 3)
        neural = NeuralBigram(len(DATA.vocabulary), steps=2).fit([1, 2, 3])
    assert all(map(torch.equal, model.parameters(), expected.parameters()))
    assert scores == [score.log_prob for score in score(expected, DATA.vocabulary, line)]
    assert texts == sample(expected, DATA.vocabulary, 3)
    assert neural.losses == NeuralBigram(len(DATA.vocabulary), steps=2).fit([1, 2, 3]).losses


def test_many_models_train_under_another_default_device():
    configs = [RunConfig(steps=20, batch_size=4, n_hidden=8, eval_every=0, seed=i) for i in (1, 2)]
    expected = train_many(configs, DATA)
    with torch.device("meta"):
        results = train_many(configs, DATA)
    assert [r.dev_loss for r in results] == [r.dev_loss for r in expected]
