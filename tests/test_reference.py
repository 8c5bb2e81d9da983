"""The reference against formulas written out by hand, and the lecture's steps."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, hessian, jacrev, vmap

from pymlp import reference

EPS_64 = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


# --- the lecture's steps --------------------------------------------------------------------------


def test_examples_of_the_lectures_first_name():
    ids = {"a": 1, "e": 5, "m": 13}
    tokens, targets = reference.examples(["emma"], ids, 3)
    assert tokens.tolist() == [[0, 0, 0], [0, 0, 5], [0, 5, 13], [5, 13, 13], [13, 13, 1]]
    assert targets.tolist() == [5, 13, 13, 1, 0]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_one_hot_times_matrix_equals_indexing(generator, dtype):
    C = torch.randn(27, 2, generator=generator)
    X = torch.randint(27, (32, 3), generator=generator).to(dtype)
    assert torch.equal(reference.one_hot_lookup(X, C), C[X])


def test_three_ways_to_concatenate_agree(generator):
    emb = torch.randn(32, 3, 2, generator=generator)
    by_view = reference.concat_by_view(emb)
    assert by_view.shape == (32, 6)
    assert torch.equal(by_view[:, 2:4], emb[:, 1])
    assert torch.equal(reference.concat_by_cat(emb), by_view)
    assert torch.equal(reference.concat_by_unbind(emb), by_view)
    assert by_view.data_ptr() == emb.data_ptr()  # the view alone copies nothing
    assert reference.concat_by_unbind(emb).data_ptr() != emb.data_ptr()


@pytest.mark.parametrize(
    "by_hand", [reference.softmax_loss_by_hand, reference.softmax_loss_shifted]
)
def test_softmax_loss_by_hand_equals_cross_entropy(generator, by_hand):
    logits = torch.randn(32, 27, generator=generator, dtype=torch.float64)
    targets = torch.randint(27, (32,), generator=generator)
    torch.testing.assert_close(by_hand(logits, targets), F.cross_entropy(logits, targets), **EPS_64)
    uniform = torch.zeros(4, 27, dtype=torch.float64)
    assert by_hand(uniform, targets[:4]).item() == pytest.approx(math.log(27), abs=1e-12)


@pytest.mark.parametrize(
    ("logits", "naive", "right"),
    [
        ([100.0, 0.0], math.nan, 0.0),  # exp overflows: inf / inf
        ([0.0, 1e4], math.inf, 1e4),  # exp overflows in the sum: -log(1 / inf)
        ([-200.0, 0.0], math.inf, 200.0),  # the probability underflows: -log(0)
        ([-1e4, -1e4], math.nan, math.log(2.0)),  # all underflow: 0 / 0
    ],
)
def test_softmax_loss_by_hand_fails_where_cross_entropy_does_not(logits, naive, right):
    row, target = torch.tensor([logits]), torch.tensor([0])
    assert reference.softmax_loss_by_hand(row, target).item() == pytest.approx(naive, nan_ok=True)
    assert F.cross_entropy(row, target).item() == pytest.approx(right)
    assert reference.softmax_loss_shifted(row, target).item() == pytest.approx(right)


# --- the operators --------------------------------------------------------------------------------


def test_embed_linear_tanh_by_hand():
    embedding = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    weight = torch.tensor([[1.0, 0.0, 0.0, -0.25], [0.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    hidden = reference.embed_linear_tanh(
        torch.tensor([[1, 0], [0, 1]], dtype=torch.int32), embedding, weight, torch.ones(3)
    )
    # Row 0 is [2, 3, 0, 1], row 1 is [0, 1, 2, 3].
    expected = torch.tensor([[2.75, 2.5, 1.0], [0.25, 1.5, 1.0]]).tanh()
    torch.testing.assert_close(hidden, expected)


def written_out(logits, targets, weight, ignore_index, reduction, label_smoothing, z_loss):
    """linear_cross_entropy after the logits, one token and one class at a time."""
    losses, normaliser = [], 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        if target == ignore_index:
            losses.append(0.0)
            continue
        log_sum = math.log(sum(math.exp(x) for x in row))
        share = [label_smoothing / len(row)] * len(row)
        share[target] += 1.0 - label_smoothing
        terms = zip(share, weight, row, strict=True)
        losses.append(sum(q * w * (log_sum - x) for q, w, x in terms) + z_loss * log_sum**2)
        normaliser += weight[target]
    return {"none": losses, "sum": sum(losses), "mean": sum(losses) / normaliser}[reduction]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("label_smoothing", "z_loss", "softcap"),
    [(0.0, 0.0, None), (0.0, 0.3, None), (0.1, 0.0, 2.0), (0.1, 0.3, 2.0)],
)
def test_linear_cross_entropy_equals_the_formula_written_out(
    generator, reduction, weighted, label_smoothing, z_loss, softcap
):
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    W = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    b = torch.randn(5, generator=generator, dtype=torch.float64)
    weight = torch.rand(5, generator=generator, dtype=torch.float64) if weighted else None
    targets = torch.tensor([0, 3, -1, 4, -1, 2])
    options = {"ignore_index": -1, "reduction": reduction, "label_smoothing": label_smoothing}
    loss = reference.linear_cross_entropy(
        x, W, targets, linear_bias=b, weight=weight, z_loss=z_loss, softcap=softcap, **options
    )
    logits = x @ W.T + b
    if softcap is not None:
        logits = softcap * (logits / softcap).tanh()
    weights = weight.tolist() if weight is not None else [1.0] * 5
    expected = written_out(logits, targets, weights, z_loss=z_loss, **options)
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), **EPS_64)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("z_loss", [0.0, 0.3])
def test_linear_cross_entropy_with_probabilities_and_leading_shapes(generator, reduction, z_loss):
    x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    W = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    ids = torch.randint(5, (2, 3), generator=generator, dtype=torch.int32)
    options = {"reduction": reduction, "z_loss": z_loss}
    by_id = reference.linear_cross_entropy(x, W, ids, **options)
    assert by_id.shape == ((2, 3) if reduction == "none" else ())
    probabilities = F.one_hot(ids.long(), 5).double()
    by_probability = reference.linear_cross_entropy(x, W, probabilities, **options)
    torch.testing.assert_close(by_id, by_probability, **EPS_64)
    one = reference.linear_cross_entropy(x[1, 2], W, ids[1, 2], **options)
    if reduction == "none":
        torch.testing.assert_close(one, by_id[1, 2], **EPS_64)


@pytest.mark.parametrize("z_loss", [0.0, 0.3])
def test_linear_cross_entropy_with_nothing_that_counts(z_loss):
    W = torch.randn(5, 4)
    for x, targets in [
        (torch.randn(3, 4), torch.full((3,), -100)),
        (torch.randn(0, 4), torch.empty(0, dtype=torch.int64)),
    ]:
        assert reference.linear_cross_entropy(x, W, targets, z_loss=z_loss).isnan()
        none = reference.linear_cross_entropy(x, W, targets, z_loss=z_loss, reduction="none")
        assert torch.equal(none, torch.zeros(len(x)))


# --- derivatives and transforms -------------------------------------------------------------------


@pytest.fixture
def parameters(generator):
    """tokens, targets, and the five parameters in float64: V=5, T=2, E=3, H=4."""
    tokens = torch.randint(5, (6, 2), generator=generator)
    targets = torch.tensor([0, 4, -100, 2, 1, 1])
    shapes = [(5, 3), (4, 6), (4,), (5, 4), (5,)]
    return tokens, targets, *(torch.randn(s, generator=generator).double() for s in shapes)


def test_derivatives_of_first_and_second_order(parameters):
    tokens, targets, embedding, hidden_weight, hidden_bias, W, b = parameters
    inputs = [p.requires_grad_() for p in (embedding, hidden_weight, hidden_bias, W, b)]

    def loss(embedding, hidden_weight, hidden_bias, W, b):
        hidden = reference.embed_linear_tanh(tokens, embedding, hidden_weight, hidden_bias)
        return reference.linear_cross_entropy(
            hidden, W, targets, linear_bias=b, label_smoothing=0.1, z_loss=0.3, softcap=2.0
        )

    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


def test_transforms_compose(parameters):
    tokens, targets, *weights = parameters

    def loss(embedding, tokens, target):
        out = reference.mlp_cross_entropy(tokens, target, embedding, *weights[1:])
        hidden = reference.embed_linear_tanh(tokens, embedding, *weights[1:3])
        options = {"z_loss": 0.3, "softcap": 2.0, "weight": weights[4].exp()}
        return out + reference.linear_cross_entropy(hidden, weights[3], target, **options)

    keep = targets != -100  # the mean of one ignored token is nan
    tokens, targets = tokens[keep], targets[keep]
    embedding = weights[0]
    one_by_one = torch.stack(
        [grad(loss)(embedding, *pair) for pair in zip(tokens, targets, strict=True)]
    )
    per_example = vmap(grad(loss), in_dims=(None, 0, 0))(embedding, tokens, targets)
    torch.testing.assert_close(per_example, one_by_one, **EPS_64)
    torch.testing.assert_close(
        jacrev(loss)(embedding, tokens, targets), grad(loss)(embedding, tokens, targets), **EPS_64
    )

    # The third derivative, by differentiating the trace of the Hessian.
    def trace(embedding):
        return hessian(loss)(embedding, tokens, targets).reshape(15, 15).trace()

    third = grad(trace)(embedding)
    step = 1e-5 * torch.ones_like(embedding)
    difference = (trace(embedding + step) - trace(embedding - step)) / 2e-5
    assert third.sum().item() == pytest.approx(difference.item(), rel=1e-6)


def test_mlp_cross_entropy_is_the_models_loss(parameters):
    tokens, targets, embedding, hidden_weight, hidden_bias, W, b = parameters
    h = torch.tanh(embedding[tokens].view(-1, 6) @ hidden_weight.T + hidden_bias)
    expected = F.cross_entropy(h @ W.T + b, targets, reduction="none", label_smoothing=0.1)
    loss = reference.mlp_cross_entropy(
        *parameters, reduction="none", label_smoothing=0.1, ignore_index=-100
    )
    torch.testing.assert_close(loss, expected, **EPS_64)
