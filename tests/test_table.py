"""The paper's table on a small corpus: what each row is, that it is judged exactly, and resumed."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from pymlp.cli import main
from pymlp.data import Dataset, names
from pymlp.evaluate import evaluate
from pymlp.inference import token_losses
from pymlp.ngram import DeletedInterpolation, KneserNey
from pymlp.run_config import RunConfig
from pymlp.rundir import RunDirectory
from pymlp.table import ROWS, paper_table

DATA = Dataset.from_lines([list(name) for name in names()[:600]], block_size=1)
CONFIG = RunConfig(steps=30, batch_size=16, lr=0.1, eval_every=10)


@pytest.fixture
def ids():
    return DATA.stream.ids.numpy()


def test_a_network_is_judged_by_its_best_parameters(tmp_path):
    (row,) = paper_table(DATA, CONFIG, tmp_path, ["MLP5"], test=True)
    model = RunDirectory.open(tmp_path / "t4-h50-e30-direct").model(best=True)
    assert (model.config.n_hidden, model.config.n_embd, model.config.direct) == (50, 30, True)
    assert row.n_params == model.config.n_params
    data = replace(DATA, block_size=4)
    for split in ("train", "dev", "test"):
        assert math.log(row.perplexity[split]) == pytest.approx(
            evaluate(model, getattr(data, split))
        )


def test_counted_rows_are_the_n_gram_models(tmp_path, ids):
    kn, interpolated = paper_table(DATA, CONFIG, tmp_path, ["KN4", "Del. Int."])
    begin, end = DATA.ends.train, DATA.ends.dev
    vocab_size = len(DATA.vocabulary)
    model = KneserNey(4, vocab_size).fit(ids[:begin])
    assert kn.perplexity["dev"] == pytest.approx(model.perplexity(ids, begin, end))
    trigram = DeletedInterpolation(3, vocab_size).fit(ids[:begin], ids[begin:end])
    assert interpolated.perplexity["dev"] == pytest.approx(trigram.perplexity(ids, begin, end))
    assert kn.n_params is None
    assert "test" not in kn.perplexity


def test_half_and_half(tmp_path, ids):
    (row,) = paper_table(DATA, CONFIG, tmp_path, ["MLP8"])
    model = RunDirectory.open(tmp_path / "t2-h50-e30-direct").model(best=True)
    dev = replace(DATA, block_size=2).dev
    begin, end = DATA.ends.train, DATA.ends.dev
    trigram = DeletedInterpolation(3, len(DATA.vocabulary)).fit(ids[:begin], ids[begin:end])
    half = np.exp(-token_losses(model, dev.tokens, dev.targets).numpy())
    half = (half + np.exp(trigram.log_probs(ids, begin, end))) / 2
    assert math.log(row.perplexity["dev"]) == pytest.approx(-np.log(half).mean())


@pytest.mark.parametrize("mixture", ["learned", "binned", "contexts"])
def test_learned_weights_are_better_than_either_model_on_dev(tmp_path, mixture):
    alone, mixed, trigram = paper_table(
        DATA, CONFIG, tmp_path, ["MLP7", "MLP8", "Del. Int."], mixture=mixture
    )
    assert mixed.perplexity["dev"] < min(alone.perplexity["dev"], trigram.perplexity["dev"])
    assert mixed.seconds == alone.seconds, "one model for both"


def test_an_interrupted_table_goes_on(tmp_path):
    def interrupt(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        paper_table(DATA, CONFIG, tmp_path, ["MLP7", "MLP9"], on_row=interrupt)
    made = paper_table(DATA, CONFIG, tmp_path, ["MLP7", "MLP9"])
    assert [row.seconds is None for row in made] == [True, False]
    with pytest.raises(ValueError, match="was trained with"):
        paper_table(DATA, replace(CONFIG, lr=0.2), tmp_path, ["MLP7"])


def test_own_sizes(tmp_path):
    config = replace(CONFIG, n_embd=7, n_hidden=9)
    (row,) = paper_table(replace(DATA, block_size=3), config, tmp_path, ["own"])
    model = RunDirectory.open(tmp_path / "t3-h9-e7").model()
    assert (model.config.block_size, model.config.n_embd, model.config.n_hidden) == (3, 7, 9)
    assert (row.row.order, row.paper.test) == (4, None)


def test_unknown_rows(tmp_path):
    with pytest.raises(ValueError, match=r"rows must be among MLP1, .* got MLP11"):
        paper_table(DATA, CONFIG, tmp_path, ["MLP11"])


def test_the_papers_figures():
    best = min(row.paper.test for row in ROWS.values())
    assert (ROWS["MLP10"].paper.test, best) == (252, 252)


def test_command(tmp_path):
    corpus = tmp_path / "text.txt"
    corpus.write_text("".join(f"{' '.join(name)}\n" for name in names()[:300]))
    arguments = ["table", "--data", str(corpus), "--out", str(tmp_path / "out"), "--steps", "20"]
    arguments += ["--batch-size", "8", "--split", "lines", "--min-count", "1", "--eval-every", "10"]
    arguments += ["--rows", "MLP9, MLP10, KN3"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert "MLP10" in shown.stdout
    assert "252" in shown.stdout
    told = CliRunner().invoke(main, [*arguments, "--json"])
    rows = json.loads(told.stdout)["rows"]
    assert [row["name"] for row in rows] == ["MLP9", "MLP10", "KN3"]
    assert np.isfinite([row["perplexity"]["dev"] for row in rows]).all()


def test_every_split_that_is_judged_needs_examples(tmp_path):
    without = replace(DATA, ends=DATA.ends._replace(dev=DATA.ends.train))
    with pytest.raises(ValueError, match="dev has none"):
        paper_table(without, CONFIG, tmp_path, ["KN3"])
