"""mlp_cross_entropy against literals and against PyTorch, with every instruction set."""

import math

import pytest
import torch
from ops_testing import DTYPES, assert_no_worse_than_torch, make_case, plain, results

import pymlp
from pymlp import functional, mlp_cross_entropy

pytestmark = pytest.mark.usefixtures("one_thread", "device")

OPTIONS = [
    {},
    {"bias": False, "reduction": "sum"},
    {"reduction": "none", "ignored": 2},
    {"label_smoothing": 0.1, "ignored": 3},
    {"N": 300, "V": 27, "E": 10, "H": 200},  # the lecture's model
    {"N": 20, "V": 1000, "E": 5, "H": 12, "T": 2},
]
# The CPU's kernels divide a vocabulary of this size among threads, by a way of their own.
OPTIONS += [{"N": 60, "V": 1100, "H": 7} | options for options in OPTIONS[:-2]]


def test_literal():
    tokens, targets = torch.tensor([[0, 1]]), torch.tensor([1])
    embedding = torch.tensor([[2.0], [4.0]], requires_grad=True)
    hidden_weight = torch.tensor([[0.5, -0.25]], requires_grad=True)
    hidden_bias = torch.zeros(1, requires_grad=True)  # hidden = tanh(0.5 * 2 - 0.25 * 4) = 0
    output_weight = torch.tensor([[1.0], [3.0]], requires_grad=True)
    output_bias = torch.tensor([3.0, 1.0]).log().requires_grad_()
    parameters = (embedding, hidden_weight, hidden_bias, output_weight, output_bias)
    loss = mlp_cross_entropy(tokens, targets, *parameters)
    assert loss.item() == pytest.approx(math.log(4))  # -log of 1 / (3 + 1)
    loss.backward()
    assert output_bias.grad.tolist() == pytest.approx([3 / 4, 1 / 4 - 1])  # softmax - one-hot
    assert output_weight.grad.tolist() == [[0], [0]]
    dhidden = 3 / 4 * 1 - 3 / 4 * 3  # and tanh'(0) = 1
    assert hidden_bias.grad.item() == pytest.approx(dhidden)
    assert hidden_weight.grad[0].tolist() == pytest.approx([2 * dhidden, 4 * dhidden])
    assert embedding.grad[:, 0].tolist() == pytest.approx([0.5 * dhidden, -0.25 * dhidden])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_worse_than_torch(isa, dtype):
    for seed, options in enumerate(OPTIONS):
        assert_no_worse_than_torch(make_case("mlp_cross_entropy", seed=seed, **options), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_every_size_around_the_vector_width(isa, dtype):
    for n in range(1, 34):
        case = make_case("mlp_cross_entropy", N=5, T=2, V=n, E=3, H=34 - n, seed=n)
        assert_no_worse_than_torch(case, dtype)


def test_extreme_logits_behave_as_in_torch(isa):
    for bias in (1e4, -1e4, math.inf, -math.inf, math.nan):
        case = make_case("mlp_cross_entropy").to(torch.float32)
        case.parameters["output_bias"][4] = bias
        ours, torchs = results(functional, case), results(plain, case)
        for name, expected in torchs.items():
            torch.testing.assert_close(ours[name], expected, equal_nan=True)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("N", [0, 3])
def test_nothing_that_counts_is_as_in_torch(isa, N, reduction):
    case = make_case("mlp_cross_entropy", N=N, ignored=N, reduction=reduction)
    ours, expected = results(functional, case), results(plain, case)
    for name in expected:  # nan for the mean of nothing, else zeros
        torch.testing.assert_close(ours[name], expected[name], equal_nan=True)
        assert name == "output" or not ours[name].any()


@pytest.mark.parametrize("ignore_index", [3, -1, 99])
def test_ignore_index(isa, ignore_index):
    case = make_case("mlp_cross_entropy", N=20, V=5, ignore_index=ignore_index)
    case.ids["targets"][::3] = ignore_index
    assert_no_worse_than_torch(case, torch.float32)


def test_tables_of_different_sizes():
    # The output layer may have more or fewer classes than there are tokens.
    case = make_case("mlp_cross_entropy", V=11)
    for name in ("output_weight", "output_bias"):
        case.parameters[name] = case.parameters[name][:6]
    case.ids["targets"] %= 6
    assert_no_worse_than_torch(case, torch.float32)


def test_it_is_the_two_layers_one_after_the_other(isa):
    case = make_case("mlp_cross_entropy", N=50, V=27, E=10, H=40).to(torch.float32)
    p, tokens, targets = case.parameters, case.ids["tokens"], case.ids["targets"]
    hidden = pymlp.embed_linear_tanh(tokens, p["embedding"], p["hidden_weight"], p["hidden_bias"])
    loss = pymlp.linear_cross_entropy(
        hidden, p["output_weight"], targets, linear_bias=p["output_bias"]
    )
    torch.testing.assert_close(case.run(functional), loss)
