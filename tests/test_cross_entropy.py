"""cross_entropy against literals and F.cross_entropy, with every instruction set."""

import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F
from ops_testing import (
    DTYPES,
    WORTH_FUSING,
    Case,
    assert_no_worse_than_torch,
    assert_same,
    make_case,
    plain,
    results,
    seeded,
)

from pymlp import cross_entropy, functional

pytestmark = pytest.mark.usefixtures("one_thread", "device")

on_the_cpu = pytest.mark.parametrize("device", ["cpu"], indirect=True)
INF, NAN = math.inf, math.nan

OPTIONS = [
    {},
    {"reduction": "sum"},
    {"reduction": "none", "ignored": 2},
    {"label_smoothing": 0.1, "ignored": 3},
    {"class_weight": True, "ignored": 1},
    {"class_weight": True, "label_smoothing": 0.3, "reduction": "none"},
    {"label_smoothing": 1.0},
    {"N": 300, "V": 27},
    {"N": 20, "V": 1000, "reduction": "sum"},
]

# Rows of logits, the target being class 0, where exp would overflow or differences are undefined.
EXTREMES = [
    [1e4, -1e4, 0.0],
    [-1e4, 1e4, 0.0],
    [-1e4, -1e4, -1e4],
    [0.0, -INF, 1.0],
    [-INF, 0.0, 1.0],
    [-INF, -INF, 2.0],
    [-INF, -INF, -INF],
    [INF, 0.0, 1.0],
    [0.0, INF, INF],
    [NAN, 0.0, 1.0],
    [0.0, 0.0, NAN],
]


# Class weights of which not every target has one, and targets for three rows.
CLASS_WEIGHTS = [
    None,
    [1, 0, 0, 0],
    [0, 0, 0, 0],
    [INF, 1, 1, 1],
    [1, 1, 1, INF],
    [NAN, 1, 1, 1],
    [1, 1, NAN, 1],
    [INF, 0, 1, 1],
    [INF, NAN, 0, 1],
]
TARGETS = [[0, 1, 3], [1, 2, 3], [2, 2, -100], [-100, 1, 3], [-100, -100, -100]]
# Their logits, of which the first row's are out of the ordinary.
LOGITS = [
    [[0, 1, 2, -1], [1, 0, 0.5, 2], [0, 0, 0, 0]],
    [[200, 0, 0, 0], [0, 200, 0, 0], [0, 0, 0, 200]],
    [[0, 1, -INF, 2], [-INF, 0, 1, 2], [0, 1, 2, 3]],
    [[NAN, 0, 1, 2], [0, 1, 2, 3], [0, 0, 0, 0]],
    [[INF, 0, 1, 2], [0, 1, 2, 3], [0, 0, 0, 0]],
    [[-INF, -INF, -INF, -INF], [0, 1, 2, 3], [0, 0, 0, 0]],
]
# What decides who computes: the type of ids, the threshold, and copies of the rows.
WAYS = [(torch.int64, 0, 1), (torch.int32, WORTH_FUSING, 1), (torch.int64, WORTH_FUSING, 44_000)]


def loss_and_gradient(function, input, target, weight, **options):
    leaf = input.clone().requires_grad_()
    loss = function(leaf, target, weight, **options)
    loss.sum().backward()
    return loss.detach(), leaf.grad


def test_literal():
    input = torch.tensor([[1.0, 3.0], [1.0, 1.0]]).log().requires_grad_()
    target = torch.tensor([0, 1])
    losses = cross_entropy(input, target, reduction="none")
    torch.testing.assert_close(losses, torch.tensor([4.0, 2.0]).log())  # -log of 1/4 and of 1/2
    loss = cross_entropy(input, target)
    torch.testing.assert_close(loss, torch.tensor(8.0).log() / 2)
    loss.backward()  # (softmax - one-hot) / N
    expected = torch.tensor([[1 / 4 - 1, 3 / 4], [1 / 2, 1 / 2 - 1]]) / 2
    torch.testing.assert_close(input.grad, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_worse_than_torch(isa, dtype):
    for seed, options in enumerate(OPTIONS):
        assert_no_worse_than_torch(make_case("cross_entropy", seed=seed, **options), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_every_size_around_the_vector_width(isa, dtype):
    for V in range(1, 34):
        assert_no_worse_than_torch(make_case("cross_entropy", N=5, V=V, seed=V), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_extreme_logits_behave_as_in_torch(isa, dtype, label_smoothing):
    rows = torch.tensor(EXTREMES, dtype=dtype)
    for width in (3, 40):  # within one vector and across several: the rest of the row is -inf
        values = F.pad(rows, (0, width - 3), value=-INF)
        ours, torchs = values.clone().requires_grad_(), values.clone().requires_grad_()
        target = torch.zeros(len(rows), dtype=torch.int64)
        options = {"reduction": "none", "label_smoothing": label_smoothing}
        loss, expected = (
            cross_entropy(ours, target, **options),
            F.cross_entropy(torchs, target, **options),
        )
        torch.testing.assert_close(loss, expected, equal_nan=True)
        loss.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(ours.grad, torchs.grad, equal_nan=True)


def test_one_class(isa):
    for dtype in DTYPES:
        input = torch.tensor([[1e4], [-3.0]], dtype=dtype, requires_grad=True)
        loss = cross_entropy(input, torch.zeros(2, dtype=torch.int64))
        loss.backward()
        assert loss.item() == 0
        assert input.grad.tolist() == [[0], [0]]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("n", [0, 3])
def test_nothing_that_counts_is_as_in_torch(isa, n, reduction):
    ours, torchs = (torch.ones(n, 5, requires_grad=True) for _ in range(2))
    target = torch.full((n,), -100)
    loss = cross_entropy(ours, target, reduction=reduction)
    expected = F.cross_entropy(torchs, target, reduction=reduction)
    torch.testing.assert_close(loss, expected, equal_nan=True)  # nan for the mean, else zeros
    loss.sum().backward()
    expected.sum().backward()
    assert torch.equal(ours.grad, torchs.grad)
    assert not ours.grad.any()


@pytest.mark.parametrize("ignore_index", [3, 0, -1, 99])
def test_ignore_index(isa, ignore_index):
    case = make_case("cross_entropy", N=20, V=5, label_smoothing=0.1, ignore_index=ignore_index)
    case.ids["target"][::3] = ignore_index
    assert_no_worse_than_torch(case, torch.float32)
    rows = results(functional, case)["dinput"].abs().sum(1)
    assert not rows[case.ids["target"] == ignore_index].any()


def test_class_weights_of_zero(isa):
    case = make_case("cross_entropy", N=20, V=5, class_weight=True, label_smoothing=0.2)
    case.options["weight"][1::2] = 0
    assert_no_worse_than_torch(case, torch.float32)


def test_any_class_weights_and_logits_behave_as_in_torch_whoever_computes(isa, monkeypatch):
    everything = list(
        itertools.product(
            LOGITS, TARGETS, CLASS_WEIGHTS, ("none", "sum", "mean"), (0.0, 0.1, 1.0), WAYS[:2]
        )
    )
    some = random.Random(0).sample(everything, 400)
    large = [(*combination[:-1], WAYS[2]) for combination in some[:5]]
    for logits, ids, weights, reduction, smoothing, (dtype, threshold, copies) in some + large:
        input = torch.tensor(logits, dtype=torch.float32).repeat(copies, 1)
        target = torch.tensor(ids).repeat(copies)
        weight = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        options = {"reduction": reduction, "label_smoothing": smoothing}
        monkeypatch.setattr(functional, "_WORTH_FUSING", threshold)
        found = loss_and_gradient(cross_entropy, input, target.to(dtype), weight, **options)
        expected = loss_and_gradient(F.cross_entropy, input, target, weight, **options)
        torch.testing.assert_close(
            found,
            expected,
            equal_nan=True,
            atol=1e-6,
            rtol=1e-4,
            msg=lambda text, at=(logits, ids, weights, options, dtype): f"{at}: {text}",
        )


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_ignored_row_has_a_gradient_of_nan_where_its_softmax_is_undefined(isa, way, monkeypatch):
    dtype, threshold, copies = way
    monkeypatch.setattr(functional, "_WORTH_FUSING", threshold)
    rows = torch.tensor(
        [[NAN, 0, 1, 2], [INF, 0, 1, 2], [-INF] * 4, [-INF, 0, 1, 2], [9e4, 0, 1, 2], [0, 0, 0, 0]]
    )
    target = torch.tensor([-100, -100, -100, -100, -100, 1], dtype=dtype)
    for options in ({}, {"label_smoothing": 0.1}):
        loss, gradient = loss_and_gradient(
            cross_entropy, rows.repeat(copies, 1), target.repeat(copies), None, **options
        )
        assert loss.item() == pytest.approx(math.log(4), rel=1e-5)
        assert gradient[:3].isnan().all()
        assert not gradient[3:5].any()
        assert gradient[5].isfinite().all()


def near_equal(V, offset, weight=None, **options):
    """Two rows of logits that are equal but for a thousandth."""
    generator = seeded(V)
    input = offset + 1e-3 * torch.randn(2, V, generator=generator, dtype=torch.float64)
    if weight is not None:
        options["weight"] = torch.full((V,), weight, dtype=torch.float64)
    target = torch.randint(V, (2,), generator=generator)
    return Case("cross_entropy", {"target": target}, {"input": input}, options)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_sums_over_many_classes_keep_their_digits(isa, label_smoothing):
    for V, offset, weight in (
        (50_257, 0, None),
        (50_257, 100, 0.3),
        (50_257, -1000, None),
        (600_000, 0, None),
        (600_000, 0, 0.3),
    ):
        case = near_equal(V, offset, weight, label_smoothing=label_smoothing)
        assert_no_worse_than_torch(case, torch.float32)


def test_targets_that_weigh_nothing_together_are_as_in_torch(isa):
    ours, torchs = (torch.zeros(1, 2, requires_grad=True) for _ in range(2))
    target, weight = torch.tensor([1]), torch.tensor([1.0, 0.0])
    for function, input in ((cross_entropy, ours), (F.cross_entropy, torchs)):
        loss = function(input, target, weight)
        loss.backward()
        assert loss.isnan()  # 0 / 0
    assert torch.equal(ours.grad.isnan(), torchs.grad.isnan())


def test_positional_arguments_are_those_of_torch():
    case = make_case("cross_entropy", class_weight=True)
    arguments = (
        case.parameters["input"],
        case.ids["target"],
        case.options["weight"],
        2,
        "sum",
        0.1,
    )
    torch.testing.assert_close(
        cross_entropy(*arguments),
        F.cross_entropy(*arguments[:3], ignore_index=2, reduction="sum", label_smoothing=0.1),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((5, 4), "probabilities"),
        ((5, 4, 2, 3), "probabilities"),
        ((4,), "probabilities"),
        ((4,), ()),
        ((5, 4, 3), (5, 3)),
        ((5, 4, 2, 3), (5, 2, 3)),
        ((0, 4, 3), (0, 3)),
    ],
)
def test_what_is_not_fused_is_torchs_own(shape, target, reduction):
    generator = seeded(0)
    ours = torch.randn(shape, generator=generator).requires_grad_()
    torchs = ours.detach().clone().requires_grad_()
    if target == "probabilities":
        target = torch.rand(shape, generator=generator).softmax(0)
    else:
        target = torch.randint(4, target, generator=generator)
    options = {
        "weight": torch.rand(4, generator=generator),
        "label_smoothing": 0.1,
        "reduction": reduction,
    }
    loss, expected = (
        cross_entropy(ours, target, **options),
        F.cross_entropy(torchs, target, **options),
    )
    assert torch.equal(loss.nan_to_num(), expected.nan_to_num())
    loss.sum().backward()
    expected.sum().backward()
    assert torch.equal(ours.grad, torchs.grad)


def test_ids_of_one_byte_are_accepted_as_by_torch():
    case = make_case("cross_entropy")
    for dtype in (torch.uint8, torch.int32):
        found = case.run(functional, target=case.ids["target"].to(dtype))
        torch.testing.assert_close(found, case.run(plain))


@on_the_cpu
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
def test_no_valid_small_input_costs_an_exception(monkeypatch, dtype):
    def original(*arguments, cross_entropy=F.cross_entropy, **options):
        try:
            return cross_entropy(*arguments, **options)
        except Exception as error:
            pytest.fail(f"PyTorch's op was given what it does not take: {error}")

    monkeypatch.setattr(functional, "_WORTH_FUSING", WORTH_FUSING)
    for shape in ((5, 4), (4,), (5, 4, 2), (5, 4, 2, 3), (0, 4)):
        input, target = torch.zeros(shape), torch.zeros(shape[:1] + shape[2:], dtype=dtype)
        target = target if len(shape) > 1 else target[0]
        for options in ({}, {"label_smoothing": 0.1, "weight": torch.ones(4)}):
            expected = F.cross_entropy(input, target.long(), **options)
            with monkeypatch.context() as patch:
                patch.setattr(F, "cross_entropy", original)
                found = cross_entropy(input, target, **options)
            torch.testing.assert_close(found, expected, equal_nan=True)


def test_half_precision_is_summed_in_float32(isa):
    # The sum of so many rows has no room in 16 bits; the mean is rounded once.
    case = make_case("cross_entropy", N=4096, V=5).to(torch.float16)
    wide = case.to(torch.float64)
    assert case.run(functional).item() == wide.run(plain).half().item()


@on_the_cpu
def test_small_inputs_are_left_to_torch_and_large_ones_are_not(monkeypatch):
    monkeypatch.setattr(functional, "_WORTH_FUSING", WORTH_FUSING)
    for V, own in ((WORTH_FUSING // 4 - 1, True), (WORTH_FUSING // 4, False)):
        case = make_case("cross_entropy", N=4, V=V, label_smoothing=0.1)
        output = case.run(functional, *case.leaves())
        assert ("CrossEntropyBackward" not in output.grad_fn.name()) == own
        torch.testing.assert_close(output, case.run(plain))
    small = make_case("cross_entropy", ignored=1, class_weight=True).to(torch.float32)
    assert_same(results(functional, small), results(plain, small))
    narrow = small.run(functional, target=small.ids["target"].int())
    torch.testing.assert_close(narrow, small.run(plain))
