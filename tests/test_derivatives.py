"""Derivatives of every order and way of asking: right, or an error; never silently wrong."""

import pytest
import torch
from ops_testing import LOSSES, OPS, make_case, plain
from torch.autograd import forward_ad, grad, gradcheck, gradgradcheck

from pymlp import functional, reference

pytestmark = pytest.mark.usefixtures("one_thread", "device")

SMALL = {"N": 4, "T": 2, "V": 5, "E": 3, "H": 3}
OPTIONS = [
    ("embed_linear_tanh", {}),
    ("embed_linear_tanh", {"bias": False}),
    ("cross_entropy", {}),
    ("cross_entropy", {"reduction": "sum", "label_smoothing": 0.2, "class_weight": True}),
    ("cross_entropy", {"reduction": "none", "ignored": 1}),
    ("linear_cross_entropy", {}),
    ("linear_cross_entropy", {"reduction": "sum", "bias": False, "softcap": 2.0}),
    ("linear_cross_entropy", {"reduction": "none", "ignored": 1, "z_loss": 0.1}),
    ("linear_cross_entropy", {"label_smoothing": 0.2, "class_weight": True, "z_loss": 0.1}),
    ("mlp_cross_entropy", {}),
    ("mlp_cross_entropy", {"reduction": "sum", "bias": False, "label_smoothing": 0.2}),
    ("mlp_cross_entropy", {"reduction": "none", "ignored": 1}),
]
every_option = pytest.mark.parametrize(("op", "options"), OPTIONS)
every_op = pytest.mark.parametrize("op", OPS)


def call(case):
    return lambda *parameters: case.run(functional, *parameters)


# --- first and higher derivatives -----------------------------------------------------------------


@every_option
def test_gradcheck(isa, op, options):
    case = make_case(op, **SMALL, **options)
    assert gradcheck(call(case), case.leaves(), check_batched_grad=True)


@every_option
def test_gradgradcheck(op, options):
    case = make_case(op, **SMALL, **options)
    assert gradgradcheck(call(case), case.leaves(), check_batched_grad=True)


@every_op
def test_third_derivative(op):
    case = make_case(op, **SMALL)

    def gradients(*parameters):
        output = case.run(functional, *parameters).sum()
        return grad(output, parameters, create_graph=True, materialize_grads=True)

    assert gradgradcheck(gradients, case.leaves())


@every_op
def test_constant_grad_output_drops_no_term_of_the_second_derivative(op):
    # Where a backward is marked once-differentiable, torch drops the term without a word.
    case = make_case(op, **SMALL)
    found = []
    for module in (functional, plain):
        leaves = case.leaves()
        first = grad(case.run(module, *leaves).sum(), leaves, create_graph=True)
        assert all(g.requires_grad for g in first)
        penalty = sum(g.square().sum() for g in first)
        found.append(grad(penalty, leaves, allow_unused=True, materialize_grads=True))
    assert any(g.any() for g in found[0])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("op", ["cross_entropy", "linear_cross_entropy"])
def test_class_weights_get_their_gradient_or_an_error_as_in_torch(op):
    case = make_case(op, class_weight=True)
    weight = case.options["weight"].requires_grad_()
    for parameters in (case.leaves(), case.parameters.values()):
        with pytest.raises(RuntimeError, match="respect to argument 'weight'"):
            case.run(functional, *(x for x in parameters if x is not None))
    shares = torch.rand(7, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = case.run(functional, target=shares)
    expected = case.run(reference, target=shares)
    torch.testing.assert_close(grad(found, weight), grad(expected, weight))


def test_second_derivative_in_half_precision():
    for op in OPS:
        case = make_case(op, **SMALL).to(torch.bfloat16)
        found = []
        for module, test in ((functional, case), (plain, case.to(torch.float64))):
            leaves = test.leaves()
            first = grad(test.run(module, *leaves).sum(), leaves, create_graph=True)
            second = grad(sum(g.square().sum() for g in first), leaves, materialize_grads=True)
            found.append([g.double() for g in second])
        for ours, truth in zip(*found, strict=True):
            torch.testing.assert_close(ours, truth, rtol=0.1, atol=0.05 * truth.abs().max().item())


# --- other ways to ask ----------------------------------------------------------------------------


@every_op
def test_batched_gradients(op):
    for options in ({}, {"reduction": "none"}) if op in LOSSES else ({},):
        case = make_case(op, N=2, H=3, **options)
        leaves = case.leaves()
        output = case.run(functional, *leaves)
        rows = torch.eye(1 + output.numel(), dtype=torch.float64)[:, 1:]
        rows = rows.view(-1, *output.shape)
        batched = grad(output, leaves, rows, is_grads_batched=True, retain_graph=True)
        for i, row in enumerate(rows):
            single = grad(output, leaves, row, retain_graph=True)
            torch.testing.assert_close([g[i] for g in batched], list(single))


@every_op
def test_forward_mode(op):
    case = make_case(op)
    leaves = case.leaves()
    tangents = [torch.ones_like(leaf) for leaf in leaves]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(leaves, tangents, strict=True)]
        output = forward_ad.unpack_dual(case.run(functional, *duals))
    primals = tuple(leaf.detach() for leaf in leaves)
    expected, tangent = torch.func.jvp(
        lambda *p: case.run(plain, *p), primals, tuple(map(torch.ones_like, primals))
    )
    torch.testing.assert_close(output.primal, expected)
    torch.testing.assert_close(output.tangent, tangent)
    found = torch.func.jvp(call(case), primals, tuple(map(torch.ones_like, primals)))
    torch.testing.assert_close(found, (expected, tangent))


@every_op
def test_forward_mode_over_a_backward(op):
    case = make_case(op)
    found = []
    for module in (functional, plain):
        leaves = case.leaves()
        output = case.run(module, *leaves)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(torch.ones_like(output), torch.full_like(output, 2))
            gradients = map(forward_ad.unpack_dual, grad(output, leaves, dual))
            found.append([(g.primal, g.tangent) for g in gradients])
    torch.testing.assert_close(found[0], found[1])
