"""Short reprs for notebooks, whatever the size of the thing."""

import pytest
import torch

import pymlp
from pymlp import MLP, MLPConfig, RunConfig, TrainConfig, Trainer, train_many
from pymlp.data import Dataset, names
from pymlp.plots import loss_figure
from pymlp.results import Results

DATA = Dataset.from_lines(names()[:60])


def test_reprs_are_short_and_say_what_matters():
    trainer = Trainer(MLP(MLPConfig(len(DATA.vocabulary), n_hidden=8)), DATA, TrainConfig(steps=50))
    history = trainer.fit()
    n, dev = len(DATA.vocabulary), history.best.dev
    vocabulary = f"Vocabulary({n} characters: '.', 'a', 'b', 'c', ...)"
    sizes = " / ".join(str(size) for size in DATA.sizes.values())
    scorer = pymlp.Scorer(trainer.model, DATA.vocabulary)
    assert [repr(x) for x in (DATA.vocabulary, DATA, DATA.train, DATA.stream, trainer)] == [
        vocabulary,
        f"Dataset({sizes} examples (train / dev / test), block_size 3, {vocabulary})",
        f"StreamExamples({len(DATA.train)} examples, block_size 3)",
        f"TokenStream({len(DATA.stream)} ids, context reset)",
        f"Trainer(step 50 of 50, engine native, {trainer.model.config.n_params} parameters, "
        f"best dev loss {dev:.4f})",
    ]
    assert f"History(50 steps, 1 evaluations, train loss {history.evals[-1].train:.4f}" in repr(
        history
    )
    assert f"best dev loss {dev:.4f} at step 50" in repr(history)
    assert len(repr(scorer)) < 200
    words = Dataset.from_lines([[f"{i}" * 1000 for i in range(100)]] * 10)
    assert len(repr(words)) < 300


def test_results_are_a_table_in_html():
    configs = [RunConfig(steps=20, n_hidden=8, lr=lr) for lr in (0.1, 1e30)]
    results = train_many(configs, DATA)
    html = results._repr_html_()
    assert html.count("<tr>") == 3
    assert "<th>lr</th><th>step</th>" in html
    assert f"<td>{results[0].dev_loss:.4f}</td>" in html
    assert repr(results) == (
        f"Results(2 models, 1 without an error, lowest dev loss {results[0].dev_loss:.4f})"
    )
    assert len(repr(results[0])) < 200
    failed = pymlp.results.Result.of(configs[0], results[0].model, None, "<b>&")
    assert "<td>&lt;b&gt;&amp;</td>" in Results([failed])._repr_html_()
    assert repr(Results([])) == "Results(0 models, 0 without an error)"


def test_a_figure_shows_itself():
    pytest.importorskip("matplotlib")
    assert loss_figure(torch.ones(5))._repr_png_().startswith(b"\x89PNG\r\n")


def test_dir_shows_what_is_public():
    shown = [name for name in dir(pymlp) if not name.startswith("__")]
    assert sorted(shown) == sorted(pymlp.__all__)
    assert "__version__" in dir(pymlp)
    assert pymlp.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="module 'pymlp' has no attribute 'Trainr'"):
        _ = pymlp.Trainr
