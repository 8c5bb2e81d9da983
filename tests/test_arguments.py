"""Numbers that users pass: those of numpy are accepted as what they are, and nothing else is."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import pymlp
from pymlp import (
    MLP,
    MLPConfig,
    RunConfig,
    TrainConfig,
    Trainer,
    evaluate,
    nearest,
    sample,
    train_many,
)
from pymlp.arguments import to_bool, to_choice, to_float, to_int
from pymlp.data import DataConfig, Dataset, Vocabulary, names
from pymlp.data import load as load_data
from pymlp.lines import NAMES
from pymlp.ngram import (
    Bigram,
    Cache,
    DeletedInterpolation,
    KneserNey,
    Mixture,
    NeuralBigram,
    NGramCounts,
)

DATA = Dataset.from_lines(names()[:60])

# Each number as numpy has it, and as it is kept.
SETTINGS = {
    "steps": (np.int64(10), 10),
    "batch_size": (np.uint8(4), 4),
    "eval_every": (np.array(5), 5),
    "seed": (np.int32(7), 7),
    "lr": (np.float32(0.125), 0.125),
    "weight_decay": (np.float64(0.5), 0.5),
    "max_grad_norm": (np.int64(1), 1.0),
    "betas": (np.array([0.5, 0.75]), (0.5, 0.75)),
    "patience": (np.int64(3), 3),
    "decay_biases": (np.False_, False),
    "n_embd": (np.int16(3), 3),
    "n_hidden": (np.int64(8), 8),
    "direct": (np.True_, True),
    "optimizer": (np.str_("adamw"), "adamw"),
}


def test_configs_keep_the_numbers_of_numpy_as_pythons():
    given = {name: value for name, (value, _) in SETTINGS.items()}
    kept = {name: value for name, (_, value) in SETTINGS.items()}
    config = RunConfig(**given)
    assert config == RunConfig(**kept)
    for name, value in kept.items():
        assert type(getattr(config, name)) is type(value), name
    assert json.loads(json.dumps(asdict(config)))["lr"] == 0.125
    assert [type(x) for x in config.betas] == [float, float]


def test_a_run_of_numpy_numbers_is_saved_and_resumed(tmp_path):
    config = RunConfig(**{name: value for name, (value, _) in SETTINGS.items()})
    trainer = config.trainer(DATA)
    trainer.save(tmp_path / "run")
    trainer.fit()
    resumed = Trainer.resume(tmp_path / "run", DATA, steps=np.int64(12))
    assert resumed.config == replace(config.train_config(), steps=12)
    assert resumed.model.config == MLPConfig(len(DATA.vocabulary), 3, 3, 8, True)


def test_functions_take_numbers_of_numpy():
    model, one = MLP(MLPConfig(np.int64(len(DATA.vocabulary)))), np.int64(1)
    assert evaluate(model, DATA.dev, np.int64(7)) == evaluate(model, DATA.dev, 7)
    drawn = sample(model, DATA.vocabulary, np.int8(3), seed=np.uint32(5), top_k=np.int64(9))
    assert drawn == sample(model, DATA.vocabulary, 3, seed=5, top_k=9)
    assert len(nearest(model, DATA.vocabulary, "a", np.int64(2))) == 2
    (result,) = train_many([RunConfig(steps=one, batch_size=one)], DATA, workers=one)
    assert result.error is None
    split = Dataset.from_lines(names()[:60], np.int64(3), split_seed=np.int64(42))
    assert split.digest == DATA.digest
    assert json.dumps(asdict(DataConfig(tokens="word", min_count=np.int64(2))))


@pytest.mark.parametrize(
    "value", [True, np.True_, torch.tensor(True), 1.0, np.float64(1), "1", None, np.arange(2)]
)
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(TypeError, match=r"^f: n must be an int, got \S"):
        to_int("f", "n", value, 0)


@pytest.mark.parametrize("value", [True, np.True_, "0.1", None, 1j, np.ones(1)])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match=r"^f: x must be a number, got \S"):
        to_float("f", "x", value)


def test_numbers_beyond_any_float_are_out_of_bounds():
    with pytest.raises(ValueError, match="f: x must be finite and at most 1, got inf"):
        to_float("f", "x", 10**400, most=1.0)
    with pytest.raises(ValueError, match="f: n must be at most 281474976710656, got 1000000"):
        to_int("f", "n", 10**30, 0)


def test_other_kinds():
    with pytest.raises(TypeError, match="f: b must be True or False, got 1"):
        to_bool("f", "b", 1)
    for value in ("c", None, np.array(["a"])):
        with pytest.raises(ValueError, match="f: c must be one of 'a', 'b', got"):
            to_choice("f", "c", value, ("a", "b"))
    with pytest.raises(TypeError, match="steps must be an int, got None"):
        TrainConfig(steps=None)


@pytest.mark.parametrize("size", [3.0, "3", True, 0, -1, 10**30])
def test_a_context_length_is_refused_where_it_is_given(size):
    calls = [
        lambda: Dataset(DATA.stream, DATA.ends, DATA.vocabulary, size),
        lambda: Dataset.from_lines(["ab"] * 20, size),
        lambda: Dataset.from_splits(DATA.lines, DATA.vocabulary, size),
        lambda: load_data(NAMES, size),
        lambda: DATA.stream.examples(size),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match=r"^\w+: block_size must be .+, got .+$"):
            call()
    assert type(load_data(NAMES, np.int64(2)).block_size) is int


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("order", lambda n: KneserNey(n, 27)),
        ("order", lambda n: DeletedInterpolation(n, 27)),
        ("order", lambda n: NGramCounts([0, 1], n, 27)),
        ("vocab_size", lambda n: KneserNey(3, n)),
        ("vocab_size", lambda n: DeletedInterpolation(3, n)),
        ("vocab_size", lambda n: NGramCounts([0, 0], 3, n)),
        ("vocab_size", Bigram),
        ("vocab_size", NeuralBigram),
        ("vocab_size", Cache),
        ("window", lambda n: Cache(27, n)),
        ("steps", lambda n: NeuralBigram(27, steps=n)),
        ("seed", lambda n: NeuralBigram(27, seed=n if n else None)),
        ("max_bytes", lambda n: NeuralBigram(27, max_bytes=n or None)),
    ],
)
def test_ngram_models_check_their_counts_when_they_are_made(name, make):
    for value in (2.5, "3", None, True, 0, 10**30):
        if (name, value) != ("steps", 0):
            with pytest.raises((TypeError, ValueError), match=rf"^\w+: {name} must be .+, got .+$"):
                make(value)


def test_ngram_models_show_their_settings():
    assert repr(KneserNey(np.int64(3), 27)) == "KneserNey(order=3, vocab_size=27, reset=True)"
    assert repr(Bigram(27, np.float32(0.5))) == "Bigram(vocab_size=27, k=0.5)"
    assert repr(Mixture("binned", prior=2)) == "Mixture(kind='binned', prior=2.0)"


@pytest.mark.parametrize("bins", [np.array([0, 2**62]), np.array([0, 2**63], np.uint64)])
def test_bins_that_no_memory_holds_are_refused(bins):
    with pytest.raises(ValueError, match=rf"^Mixture: bins must be below .*, got {bins[1]}: "):
        Mixture("binned").fit([np.zeros(2), np.zeros(2)], bins)


MODEL = MLP(MLPConfig(len(DATA.vocabulary), n_hidden=4))
ONE = RunConfig(steps=1)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: Trainer(MODEL, ["ab"]), TypeError, "Trainer: the data must be .*, got list: make"),
        (lambda: Trainer(MODEL, None), TypeError, "the data must be .*, got NoneType"),
        (lambda: Trainer(MODEL, "names.txt"), TypeError, "the data must be .*, got str"),
        (lambda: Trainer(MODEL, DATA.train), TypeError, "the data must be .*, got StreamExamples"),
        (lambda: Trainer(MODEL, DATA, "fast"), TypeError, "config must be .*, got str: make"),
        (lambda: Trainer(MODEL, DATA, {}), TypeError, "config must be .*, got dict"),
        (lambda: ONE.trainer(None), TypeError, "RunConfig: the data must be .*, got NoneType"),
        (lambda: ONE.trainer(DATA, device="zz"), ValueError, "device must be .*, got 'zz'"),
        (lambda: train_many([ONE], None), TypeError, "train_many: the data must be"),
        (lambda: train_many(None, DATA), TypeError, "configs must be .*, got a NoneType"),
        (lambda: train_many(ONE, DATA), TypeError, "configs must be .*, got a RunConfig"),
        (lambda: train_many([ONE], DATA, progress="x"), TypeError, "progress must be .*, got 'x'"),
        (lambda: train_many([ONE], DATA, device="zz"), ValueError, "device must be .*, got 'zz'"),
        (lambda: nearest(MODEL, DATA.vocabulary, 1), TypeError, "tokens must be .*, got 1"),
        (lambda: nearest(MODEL, DATA.vocabulary, None), TypeError, "tokens must be .*, got None"),
        (lambda: Vocabulary(x for x in ".a"), TypeError, "must be a tuple of str, got a generator"),
        (lambda: Vocabulary({".", "a"}), TypeError, "must be a tuple of str, got a set"),
        (lambda: Dataset.from_splits([], DATA.vocabulary), TypeError, "must be three lists"),
        (
            lambda: Dataset.from_lines(["b", "a\udc80"]),
            ValueError,
            r"line 2 holds '.udc80', a lone",
        ),
        (lambda: Dataset.from_lines([["b"], ["a\udc80"]]), ValueError, r"line 2 holds '.udc80'"),
        (lambda: RunConfig.from_preset("lecture", block_size=4), TypeError, "is the data's"),
        (lambda: RunConfig.from_preset("lecture", stepz=4), TypeError, "no field 'stepz'; fields"),
        (lambda: pymlp.load(None), TypeError, "load: directory must be a path, got None"),
        (lambda: pymlp.load("run", device="zz"), ValueError, "device must be .*, got 'zz'"),
        (lambda: pymlp.load("run", device="cuda:99"), ValueError, "'cuda:99' is not there"),
        (lambda: DATA.train[[0.5]], TypeError, "indices must be integers, got float64"),
        (lambda: DATA.train[np.array([True])], TypeError, "indices must be integers, got bool"),
    ],
)
def test_what_is_of_another_kind_is_refused_in_one_line(call, error, said):
    with pytest.raises(error, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("init", [pymlp.lecture_init, pymlp.scaled_init])
@pytest.mark.parametrize("seed", ["1", 1.0, None, True, 2**64])
def test_initialisations_refuse_what_is_no_seed(init, seed):
    model = MLP(MLPConfig(3, n_hidden=2))
    before = model.output.weight.clone()
    with pytest.raises((TypeError, ValueError), match=r"^\w+_init: seed must be .*, got \S+$"):
        init(model, seed)
    assert torch.equal(model.output.weight, before)


@pytest.mark.parametrize("rows", [[1, 2], np.array([1, 2]), np.array([1, 2], np.uint8), []])
def test_examples_are_indexed_as_by_tensors(rows):
    wanted = DATA.train[torch.tensor(rows, dtype=torch.int64)]
    for got, want in zip(DATA.train[rows], wanted, strict=True):
        assert torch.equal(got, want)


def test_write_arpa_takes_any_iterable_of_tokens_once(tmp_path):
    model = KneserNey(2, 3).fit([1, 2, 0])
    model.write_arpa(tmp_path / "listed", [".", "a", "b"])
    model.write_arpa(tmp_path / "once", iter([".", "a", "b"]))
    assert (tmp_path / "once").read_bytes() == (tmp_path / "listed").read_bytes()
    for tokens in (None, 3, ".ab"):
        with pytest.raises(TypeError, match=r"^write_arpa: tokens must be a list of str, got"):
            model.write_arpa(tmp_path / "none", tokens)
