"""embed_linear_tanh against literals and against PyTorch, with every instruction set."""

import math

import pytest
import torch
from ops_testing import DTYPES, assert_no_worse_than_torch, make_case

from pymlp import embed_linear_tanh

pytestmark = pytest.mark.usefixtures("one_thread", "device")

LAYERS = [
    {},
    {"bias": False},
    {"N": 300, "V": 27, "E": 10, "H": 200},  # the lecture's layer
    {"N": 70, "T": 1, "V": 300, "E": 17, "H": 33},  # most tokens do not occur
    {"N": 40, "T": 8, "V": 5, "E": 3, "H": 50},  # every token occurs often
]


def test_literal():
    tokens = torch.tensor([[0, 1], [1, 1]])
    embedding = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    weight = torch.tensor([[0.0, 0.5, 0.0, -0.25]], requires_grad=True)  # row 0's 2, row 1's 4
    bias = torch.tensor([0.5], requires_grad=True)
    hidden = embed_linear_tanh(tokens, embedding, weight, bias)
    first = math.tanh(0.5 * 2 - 0.25 * 4 + 0.5)  # tokens 0 and 1
    second = math.tanh(0.5 * 4 - 0.25 * 4 + 0.5)  # tokens 1 and 1
    torch.testing.assert_close(hidden, torch.tensor([[first], [second]]))

    hidden.sum().backward()
    d1, d2 = 1 - first**2, 1 - second**2  # the derivative of tanh
    torch.testing.assert_close(bias.grad, torch.tensor([d1 + d2]))
    expected = [[d1 * 1 + d2 * 3, d1 * 2 + d2 * 4, d1 * 3 + d2 * 3, d1 * 4 + d2 * 4]]
    torch.testing.assert_close(weight.grad, torch.tensor(expected))
    expected = [[0.0, 0.5 * d1], [0.0, -0.25 * d1 + 0.5 * d2 - 0.25 * d2]]
    torch.testing.assert_close(embedding.grad, torch.tensor(expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_worse_than_torch(isa, dtype):
    for seed, sizes in enumerate(LAYERS):
        assert_no_worse_than_torch(make_case("embed_linear_tanh", seed=seed, **sizes), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_size_around_the_vector_width(isa, dtype):
    for n in range(1, 34):
        case = make_case("embed_linear_tanh", N=5, T=2, V=n, E=34 - n, H=n, seed=n)
        assert_no_worse_than_torch(case, dtype)


def test_saturates_to_exactly_one(isa):
    embedding = torch.tensor([[1.0], [30.0], [1e30], [math.inf]])
    tokens = torch.arange(4)[:, None]
    for dtype in DTYPES:
        for sign in (1, -1):
            weight = torch.tensor([[sign]], dtype=dtype)
            hidden = embed_linear_tanh(tokens, embedding.to(dtype), weight)
            assert hidden[1:].tolist() == [[sign]] * 3
            assert 0.76 < abs(hidden[0].item()) < 0.77


def test_nan_stays_in_its_row(isa):
    embedding = torch.tensor([[1.0], [math.nan]])
    hidden = embed_linear_tanh(torch.tensor([[0], [1], [0]]), embedding, torch.ones(20, 1))
    assert hidden.isnan().all(1).tolist() == [False, True, False]
    assert hidden.isnan().any(1).tolist() == [False, True, False]


def test_tokens_that_do_not_occur_have_zero_gradient(isa):
    embedding = torch.randn(50, 3, requires_grad=True)
    weight = torch.randn(8, 6)
    embed_linear_tanh(torch.tensor([[7, 40]]), embedding, weight).sum().backward()
    assert embedding.grad.abs().sum(1).nonzero().flatten().tolist() == [7, 40]


def test_half_precision_is_summed_in_float32(isa):
    # 4,096 equal terms: summed in 16 bits the gradient would stop growing at 256 (bfloat16).
    embedding = torch.zeros(1, 1, dtype=torch.bfloat16)
    weight = torch.zeros(1, 1, dtype=torch.bfloat16)
    bias = torch.zeros(1, dtype=torch.bfloat16, requires_grad=True)
    tokens = torch.zeros(4096, 1, dtype=torch.int64)
    embed_linear_tanh(tokens, embedding, weight, bias).sum().backward()
    assert bias.grad.item() == 4096


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_to_nearest_with_ties_to_even(isa, dtype):
    # Where the hidden layer is 0, the gradient of the bias is the sum of dhidden's rows: here of
    # every number and a half, a quarter and three quarters of the distance to the one after it.
    numbers = torch.arange(-(2**15), 2**15 - 1, dtype=torch.int16)
    gaps = (numbers + 1).view(dtype).float() - numbers.view(dtype).float()
    numbers, gaps = numbers.view(dtype)[gaps.isfinite()], gaps[gaps.isfinite()]
    tokens, weight = torch.zeros(2, 1, dtype=torch.int64), torch.zeros(len(numbers), 1, dtype=dtype)
    for share in (0.5, 0.25, 0.75):
        dhidden = torch.stack([numbers, (share * gaps).to(dtype)])
        bias = torch.zeros(len(numbers), dtype=dtype, requires_grad=True)
        hidden = embed_linear_tanh(tokens, torch.zeros(1, 1, dtype=dtype), weight, bias)
        hidden.backward(dhidden)
        assert torch.equal(bias.grad, dhidden.float().sum(0).to(dtype))


def test_subnormal_float16_is_not_flushed_to_zero(isa):
    # float32, in which is calculated, holds it as a normal number.
    smallest = torch.tensor([[2.0**-24]], dtype=torch.float16)
    weight = torch.tensor([[1024.0]], dtype=torch.float16)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such mode")
    try:
        for embedding in (smallest, -smallest, 3 * smallest):  # tanh(x) is x there
            hidden = embed_linear_tanh(torch.tensor([[0]]), embedding, weight)
            assert hidden.item() == 1024 * embedding.item()
            hidden = embed_linear_tanh(torch.tensor([[0]]), embedding, weight / 1024)
            assert hidden.item() == embedding.item()
    finally:
        torch.set_flush_denormal(False)
