"""Examples formed from a stream, against contexts formed by hand."""

import pytest
import torch

import pymlp
from pymlp import MLP, MLPConfig, TrainConfig, _engine, reference
from pymlp.data import Dataset, Ends, Examples, TokenStream, Vocabulary
from pymlp.engines import make_engine
from pymlp.steps import Steps

IDS = [3, 1, 0, 2, 2, 4, 0, 0, 1, 3, 4, 2, 0]


def make_stream(reset, ids=IDS):
    return TokenStream(torch.tensor(ids, dtype=torch.int32), reset)


def by_hand(position, block_size, reset):
    context = []
    for at in range(position - 1, position - 1 - block_size, -1):
        inside = at >= 0 and not (reset and 0 in IDS[at:position])
        context.insert(0, IDS[at] if inside else 0)
    return context


@pytest.mark.parametrize("block_size", [1, 3, 20])
@pytest.mark.parametrize("reset", [True, False])
def test_an_example_is_a_position_and_the_tokens_before_it(reset, block_size):
    examples = make_stream(reset).examples(block_size, begin=2, end=11)
    tokens = torch.tensor([by_hand(p, block_size, reset) for p in range(2, 11)])
    targets = torch.tensor(IDS[2:11])

    def check(found, rows):
        assert found[0].dtype == found[1].dtype == torch.int64
        assert torch.equal(found[0], tokens[rows])
        assert torch.equal(found[1], targets[rows])

    assert (len(examples), examples.block_size) == (9, block_size)
    assert torch.equal(examples.counts(6), targets.bincount(minlength=6))
    check((examples.tokens, examples.targets), slice(None))
    rows = torch.tensor([[8, 0], [3, 3], [6, 1]])
    check(examples.take(rows), rows)
    parts = list(examples.parts(4))
    assert [len(part[1]) for part in parts] == [4, 4, 1]
    check([torch.cat(x) for x in zip(*parts, strict=True)], slice(None))
    # On a device, torch forms the contexts; "meta" has no values, so its code runs on the CPU here.
    positions = torch.arange(2, 11)
    check((pymlp.streams._torch_contexts(examples.stream, positions, block_size), targets), ...)


def test_another_device_gets_what_the_examples_need():
    moved = make_stream(False).examples(3, 5, 9).to(torch.device("meta"))
    assert (moved.stream.ids.device.type, len(moved.stream), moved.begin) == ("meta", 7, 3)
    assert (len(moved), moved.take(torch.arange(2))[0].shape) == (4, (2, 3))


@pytest.mark.parametrize("engine", ["native", "autograd", "reference"])
@pytest.mark.parametrize("reset", [True, False])
def test_engines_train_alike_from_a_stream_and_from_its_table(engine, reset):
    examples = make_stream(reset, IDS * 10).examples(3, begin=1)
    table = Examples(examples.tokens, examples.targets)
    indices = torch.randint(len(examples), (20, 8), generator=torch.Generator().manual_seed(1))
    results = []
    for data in (examples, table):
        torch.manual_seed(0)
        model = MLP(MLPConfig(5, block_size=3, n_embd=4, n_hidden=16))
        steps = Steps(
            indices, torch.full((20,), 0.5).double(), torch.zeros(20, dtype=torch.float64)
        )
        make_engine(engine, model, data, TrainConfig(batch_size=8)).run(steps)
        losses = [pymlp.evaluate(m, data) for m in (model, reference_of(model))]
        results.append([*steps.losses.tolist(), *losses])
    assert results[0] == results[1]


def reference_of(model):
    plain = reference.MLP(model.config)
    plain.load_state_dict(model.state_dict())
    return plain


def test_ids_out_of_range_are_found():
    data = Dataset(make_stream(True), Ends(8, 11, 13), Vocabulary.characters(["abc"]), 2)
    with pytest.raises(ValueError, match=r"stream of train must be .* 0 to 3, got 4 at \[5\]"):
        pymlp.Trainer(MLP(MLPConfig(4, 2)), data)
    larger = Dataset(TokenStream(data.stream.ids, vocab_size=5), data.ends, data.vocabulary, 2)
    with pytest.raises(ValueError, match=r"stream of train must be .* 0 to 3, got 4 at \[5\]"):
        pymlp.Trainer(MLP(MLPConfig(4, 2)), larger)
    # Where the vocabulary is said to be known, the engine finds them.
    examples = TokenStream(make_stream(True).ids, vocab_size=4).examples(2)
    steps = Steps(torch.tensor([[0, 1], [0, 5]]), torch.ones(2).double(), torch.ones(2).double())
    engine = make_engine("native", MLP(MLPConfig(4, 2)), examples, TrainConfig(batch_size=2))
    with pytest.raises(IndexError, match="target of example 5 must be from 0 to 3, got 4"):
        engine.run(steps)
    assert steps.done == 1


@pytest.mark.parametrize("ids", [torch.zeros(3), torch.zeros(6, dtype=torch.int32)[::2]])
def test_a_stream_is_a_contiguous_int32_vector(ids):
    with pytest.raises(ValueError, match="ids must be a contiguous int32 vector"):
        TokenStream(ids)


def test_positions_outside_are_refused():
    stream = make_stream(True)
    with pytest.raises(ValueError, match="ascend within 0 to 13, got 3 to 14"):
        stream.examples(2, 3, 14)
    with pytest.raises(IndexError, match="index of an example must be from 0 to 3, got 4"):
        stream.examples(2, 3, 7).take(torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="begin and end"):
        _engine.TrainingData.stream(stream.ids.numpy(), 3, 14, True)
    with pytest.raises(ValueError, match=r"end in order within the stream of 13 .* \(4, 3, 13\)"):
        Dataset(stream, Ends(4, 3, 13), Vocabulary.characters(["abcd"]), 2)


def test_the_digest_tells_data_sets_apart():
    vocabulary = Vocabulary.characters(["abcd"])
    data = [
        Dataset(make_stream(True), Ends(8, 11, 13), vocabulary, 2),
        Dataset(make_stream(False), Ends(8, 11, 13), vocabulary, 2),
        Dataset(make_stream(True), Ends(8, 12, 13), vocabulary, 2),
        Dataset(make_stream(True), Ends(8, 11, 13), Vocabulary.characters(["abce"]), 2),
        Dataset(make_stream(True, [*IDS[:-1], 1]), Ends(8, 11, 13), vocabulary, 2),
    ]
    assert len({d.digest for d in data}) == len(data)
    assert data[0].digest == Dataset(make_stream(True), Ends(8, 11, 13), vocabulary, 3).digest


def test_a_data_set_of_lines_gives_them_back():
    for lines in (["zoë", "", "b😀", "x"], [["a", "b"], [], ["</s>"], ["c"]]):
        data = Dataset.from_lines(lines, split_seed=3)
        assert data.lines == pymlp.data.split(lines, 3)
    vocabulary = Vocabulary.characters(["abcd"])
    cut_within_a_line = Dataset(make_stream(True), Ends(4, 9, 13), vocabulary, 2)
    assert cut_within_a_line.lines == (["ca", "b"], ["bd", "", "a"], ["cdb"])
