"""linear_cross_entropy against literals and against PyTorch, with every instruction set."""

import math

import pytest
import torch
import torch.nn.functional as F
from ops_testing import (
    DTYPES,
    Case,
    assert_no_worse_than_torch,
    make_case,
    plain,
    random_like,
    results,
    seeded,
)

from pymlp import functional, linear_cross_entropy, reference

pytestmark = pytest.mark.usefixtures("one_thread", "device")

OPTIONS = [
    {},
    {"bias": False, "reduction": "sum"},
    {"reduction": "none", "ignored": 2},
    {"label_smoothing": 0.1, "ignored": 3},
    {"class_weight": True, "label_smoothing": 0.3, "reduction": "none"},
    {"z_loss": 0.1},
    {"z_loss": 0.1, "class_weight": True, "ignored": 2},
    {"z_loss": 0.1, "reduction": "none", "ignored": 2},
    {"softcap": 1.5},
    {"softcap": 3.0, "z_loss": 0.01, "label_smoothing": 0.1, "class_weight": True, "ignored": 1},
    {"N": 300, "V": 27, "H": 200},
    {"N": 20, "V": 1000, "H": 5, "reduction": "sum"},
]
# The CPU's kernels divide a vocabulary of this size among threads, by a way of their own.
OPTIONS += [{"N": 60, "V": 1100, "H": 7} | options for options in OPTIONS[:-2]]


def test_literal():
    input = torch.tensor([[1.0, 2.0]], requires_grad=True)
    weight = (torch.tensor([[1.0, 1.0], [3.0, 1.0]]).log()).requires_grad_()
    bias = torch.zeros(2, requires_grad=True)  # the logits are log 1 and log 3
    target = torch.tensor([0])
    loss = linear_cross_entropy(input, weight, target, linear_bias=bias)
    torch.testing.assert_close(loss, torch.tensor(4.0).log())
    loss.backward()
    dlogits = torch.tensor([1 / 4 - 1, 3 / 4])  # softmax - one-hot
    torch.testing.assert_close(bias.grad, dlogits)
    torch.testing.assert_close(weight.grad, dlogits[:, None] * torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(input.grad, torch.tensor([[3 / 4 * math.log(3), 0.0]]))


def test_literal_z_loss_and_softcap():
    input, weight, target = torch.ones(1, 1), torch.zeros(4, 1), torch.tensor([2])
    loss = linear_cross_entropy(input, weight, target, z_loss=0.5)
    assert loss.item() == pytest.approx(math.log(4) + 0.5 * math.log(4) ** 2)
    weight[2] = 1e4  # capped: 2 tanh(5000) = 2
    loss = linear_cross_entropy(input, weight, target, softcap=2.0)
    assert loss.item() == pytest.approx(math.log(1 + 3 * math.exp(-2)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_worse_than_torch(isa, dtype):
    for seed, options in enumerate(OPTIONS):
        assert_no_worse_than_torch(make_case("linear_cross_entropy", seed=seed, **options), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_size_around_the_vector_width(isa, dtype):
    for n in range(1, 34):
        case = make_case("linear_cross_entropy", N=5, V=n, H=34 - n, seed=n)
        assert_no_worse_than_torch(case, dtype)


def test_extreme_logits_behave_as_in_torch(isa):
    # A column of ones: the logits of row n are those of column n here, the target being class 0.
    logits = torch.tensor(
        [
            [1e4, -1e4, 0.0, math.inf, 0.0, math.nan],
            [-1e4, 1e4, -math.inf, 0.0, math.inf, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        ]
    )
    target = torch.zeros(1, dtype=torch.int64)
    for reduction in ("mean", "none"):
        for column in logits.T:
            ours, torchs = (column.clone().requires_grad_() for _ in range(2))
            input, weight = torch.ones(1, 2), torch.zeros(3, 2)
            loss = linear_cross_entropy(
                input, weight, target, linear_bias=ours, reduction=reduction
            )
            expected = F.cross_entropy(torchs[None], target, reduction=reduction)
            torch.testing.assert_close(loss, expected, equal_nan=True)
            loss.sum().backward()
            expected.sum().backward()
            torch.testing.assert_close(ours.grad, torchs.grad, equal_nan=True)


def test_smoothing_over_many_classes_of_negative_weight_is_torchs(isa):
    torch.manual_seed(0)
    input, linear = torch.randn(20, 8), torch.randn(3000, 8)
    target, weight = torch.randint(0, 3000, (20,)), -torch.rand(3000)
    terms = {"weight": weight, "label_smoothing": 0.1}
    loss = linear_cross_entropy(input, linear, target, **terms)
    torch.testing.assert_close(loss, F.cross_entropy(input @ linear.T, target, **terms))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_extreme_logits_of_many_classes_behave_as_in_torch(isa, label_smoothing):
    # The logits are the bias. Whole tiles of classes have no probability, or all of it.
    impossible, certain = torch.zeros(1500), torch.zeros(1500)
    if label_smoothing == 0:
        impossible[:1000], impossible[1200:] = -math.inf, -1e4
    certain[700], certain[:300] = 1e4, -1e4
    infinite, undefined = torch.zeros(1500), torch.zeros(1500)
    infinite[900], undefined[900] = math.inf, math.nan
    far = torch.linspace(-1e4, -1e4 + 30, 1500)
    for logits in (impossible, certain, infinite, undefined, far):
        for target in (torch.tensor([1100]), torch.tensor([700])):
            ours, torchs = (logits.clone().requires_grad_() for _ in range(2))
            loss = linear_cross_entropy(
                torch.ones(1, 2),
                torch.zeros(1500, 2),
                target,
                linear_bias=ours,
                label_smoothing=label_smoothing,
            )
            expected = F.cross_entropy(torchs[None], target, label_smoothing=label_smoothing)
            torch.testing.assert_close(loss, expected, equal_nan=True)
            loss.backward()
            expected.backward()
            torch.testing.assert_close(ours.grad, torchs.grad, equal_nan=True)


def test_one_class(isa):
    for dtype in DTYPES:
        input = torch.full((3, 4), 100.0, dtype=dtype, requires_grad=True)
        weight = torch.full((1, 4), 10.0, dtype=dtype, requires_grad=True)
        loss = linear_cross_entropy(input, weight, torch.zeros(3, dtype=torch.int64))
        loss.backward()
        assert loss.item() == 0
        assert not input.grad.any()
        assert not weight.grad.any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("N", [0, 3])
def test_nothing_that_counts_is_as_in_torch(isa, N, reduction):
    case = make_case("linear_cross_entropy", N=N, ignored=N, reduction=reduction)
    ours, expected = results(functional, case), results(plain, case)
    for name in expected:  # nan for the mean of nothing, else zeros
        torch.testing.assert_close(ours[name], expected[name], equal_nan=True)
        assert name == "output" or not ours[name].any()


@pytest.mark.parametrize("ignore_index", [3, -1, 99])
def test_ignore_index(isa, ignore_index):
    case = make_case(
        "linear_cross_entropy", N=20, V=5, z_loss=0.1, ignore_index=ignore_index, reduction="sum"
    )
    case.ids["target"][::3] = ignore_index
    assert_no_worse_than_torch(case, torch.float32)
    rows = results(functional, case)["dinput"].abs().sum(1)
    assert not rows[case.ids["target"] == ignore_index].any()


def test_class_weights_of_zero(isa):
    case = make_case("linear_cross_entropy", N=20, V=5, class_weight=True, label_smoothing=0.2)
    case.options["weight"][1::2] = 0
    assert_no_worse_than_torch(case, torch.float32)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 1.0}, {"z_loss": 0.1}], ids=str)
def test_sums_over_many_classes_keep_their_digits(isa, options):
    V = 50_257
    input, weight = (torch.zeros(shape, dtype=torch.float64) for shape in ((2, 3), (V, 3)))
    parameters = {"input": 1e-3 * random_like(input), "linear_weight": random_like(weight)}
    for class_weight in (None, torch.full((V,), 0.3, dtype=torch.float64)):
        terms = options | {"weight": class_weight}
        case = Case("linear_cross_entropy", {"target": torch.tensor([7, V - 1])}, parameters, terms)
        assert_no_worse_than_torch(case, torch.float32)


@pytest.mark.parametrize("V", [4, 1100])
@pytest.mark.parametrize("terms", [{}, {"label_smoothing": 0.1}, {"z_loss": 0.1}], ids=str)
def test_class_weights_that_are_not_finite_behave_as_in_torch(isa, V, terms):
    for reduction in ("none", "sum", "mean"):
        for first in ([math.inf, 1, 1], [math.nan, 1, 1], [1, 1, math.inf], [1, 0, 0], [0, 0, 0]):
            case = make_case("linear_cross_entropy", N=5, V=V, reduction=reduction, **terms)
            case.ids["target"][:] = torch.tensor([1, 2, 1, -100, -100])
            case.options["weight"] = torch.ones(V, dtype=torch.float64)
            case.options["weight"][:3] = torch.tensor(first, dtype=torch.float64)
            ours, expected = results(functional, case), results(reference, case)
            for name in expected:
                torch.testing.assert_close(ours[name], expected[name], equal_nan=True)


@pytest.mark.parametrize("V", [4, 1100])
def test_an_ignored_row_has_a_gradient_of_nan_where_its_softmax_is_undefined(isa, V):
    case = make_case("linear_cross_entropy", N=4, V=V, ignored=3)
    case.parameters["input"][0, 0] = math.inf
    ours, expected = results(functional, case), results(plain, case)
    assert ours["dinput"][0].isnan().all()
    assert not ours["dinput"][1:3].any()
    for name in expected:
        torch.testing.assert_close(ours[name], expected[name], equal_nan=True)


@pytest.mark.parametrize("leading", [(7,), (2, 3), ()])
def test_probability_targets_go_to_torch(leading):
    case = make_case("linear_cross_entropy", N=leading, label_smoothing=0.1)
    input, weight, bias = case.leaves()
    target = torch.rand(*leading, 11, generator=seeded(0)).softmax(-1)
    target = target.double()
    loss = linear_cross_entropy(input, weight, target, linear_bias=bias, label_smoothing=0.1)
    logits = F.linear(input, weight, bias).view(-1, 11)
    expected = F.cross_entropy(logits, target.view(-1, 11), label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
    for ours, torchs in zip(
        torch.autograd.grad(loss, (input, weight, bias)),
        torch.autograd.grad(expected, (input, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(ours, torchs)
