"""Any strides, leading shape, integer dtype and size, for every operator."""

import pytest
import torch
from ops_testing import (
    OPS,
    assert_no_worse_than_torch,
    assert_same,
    make_case,
    plain,
    random_like,
    results,
)

from pymlp import functional

pytestmark = pytest.mark.usefixtures("one_thread", "device")

every_op = pytest.mark.parametrize("op", OPS)


def transposed(t):
    return t.T.contiguous().T if t.dim() > 1 else sliced(t)


def sliced(t):
    wide = torch.full((*t.shape[:-1], 2 * t.shape[-1] + 1), 3, dtype=t.dtype)
    wide[..., 1::2] = t
    return wide[..., 1::2]


def shifted(t):
    """At an address that is a multiple of the element size only."""
    flat = torch.cat([t.new_zeros(1), t.flatten()])
    return flat[1:].view(t.shape)


@every_op
@pytest.mark.parametrize("layout", [transposed, sliced, shifted])
def test_strides_do_not_matter(isa, op, layout):
    for dtype in (torch.float32, torch.bfloat16):
        options = {} if op in ("embed_linear_tanh", "mlp_cross_entropy") else {"class_weight": True}
        case = make_case(op, **options).to(dtype)
        expected = results(functional, case)
        leaves = case.leaves()
        strided = [layout(leaf) for leaf in leaves]
        ids = {name: layout(value) for name, value in case.ids.items()}
        constants = {k: layout(v) for k, v in case.options.items() if isinstance(v, torch.Tensor)}
        output = case.run(functional, *strided, **ids, **constants)
        grad_output = random_like(output)
        if output.dim():
            grad_output = layout(grad_output)
        output.backward(grad_output)
        found = {"d" + n: leaf.grad for n, leaf in zip(case.names, leaves, strict=True)}
        assert_same({"output": output, **found}, expected)


@every_op
def test_expanded_inputs(isa, op):
    case = make_case(op, N=6).to(torch.float32)
    leaves = case.leaves()
    expanded = [leaf[:1].expand(leaf.shape) for leaf in leaves]
    ids = {name: value[:1].expand(value.shape) for name, value in case.ids.items()}
    found = torch.autograd.grad(case.run(functional, *expanded, **ids).sum(), leaves)
    expected = torch.autograd.grad(case.run(plain, *expanded, **ids).sum(), leaves)
    torch.testing.assert_close(found, expected)


@every_op
def test_int32_ids_give_the_same_bits(isa, op):
    case, narrow = make_case(op), make_case(op)
    for name, value in narrow.ids.items():
        narrow.ids[name] = value.int()
    assert_same(results(functional, narrow), results(functional, case))


@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (2, 1, 3), (2, 0, 3)])
@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("embed_linear_tanh", {}),
        ("linear_cross_entropy", {"reduction": "sum"}),
        ("linear_cross_entropy", {"reduction": "none", "z_loss": 0.1}),
        ("mlp_cross_entropy", {"reduction": "sum"}),
        ("mlp_cross_entropy", {"reduction": "none"}),
    ],
)
def test_any_leading_shape(op, options, leading):
    case = make_case(op, N=leading, **options)
    found, expected = results(functional, case), results(plain, case)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@every_op
def test_size_one_of_everything(isa, op):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert_no_worse_than_torch(make_case(op, N=1, T=1, V=1, E=1, H=1), dtype)


def test_no_hidden_units(isa):
    # Logits that are nothing but the bias, whose gradient is all there is.
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert_no_worse_than_torch(make_case("embed_linear_tanh", H=0), dtype)
        for op in ("linear_cross_entropy", "mlp_cross_entropy"):
            case = make_case(op, H=1)
            shapes = {"input": (7, 0), "linear_weight": (11, 0), "output_weight": (11, 0)}
            shapes |= {"hidden_weight": (0, 12), "hidden_bias": (0,)}
            for name in shapes.keys() & case.parameters.keys():
                case.parameters[name] = torch.empty(shapes[name], dtype=torch.float64)
            assert_no_worse_than_torch(case, dtype)


@every_op
def test_empty_batch(isa, op):
    for dtype in (torch.float32, torch.float16):
        case = make_case(op, N=0).to(dtype)
        found, expected = results(functional, case), results(plain, case)
        for name, value in expected.items():  # the mean of nothing is nan, its gradients are 0
            torch.testing.assert_close(found[name], value, equal_nan=True)
            assert name == "output" or not found[name].any()


@every_op
def test_sizes_that_cross_the_borders_of_chunks_and_vectors(isa, op):
    for seed, (N, V, H) in enumerate([(255, 31, 17), (257, 33, 65), (700, 5, 3), (40, 513, 129)]):
        case = make_case(op, N=N, V=V, H=H, E=5, seed=seed)
        assert_no_worse_than_torch(case, torch.float32)
