"""Every wrong argument raises an error that names op, argument, expected and got."""

import re

import pytest
import torch
from ops_testing import LOSSES, OPS, WORTH_FUSING, make_case

import pymlp
from pymlp import functional
from pymlp._library import ops

pytestmark = pytest.mark.usefixtures("one_thread", "device", "check_ids")


@pytest.fixture(autouse=True, params=["kernel", "torch"])
def small_inputs(request, monkeypatch):
    """The messages are the same where `cross_entropy` would leave small inputs to PyTorch."""
    if request.param == "torch":
        monkeypatch.setattr(functional, "_WORTH_FUSING", WORTH_FUSING)


def float32_case(op):
    """Of make_case's sizes: N = 7, T = 3, V = 11, E = 4, H = 9."""
    return make_case(op).to(torch.float32)


def changed(op, name, change):
    """The case's arguments with one of them changed."""
    case = float32_case(op)
    return case.run(functional, **{name: change((case.ids | case.parameters)[name])})


def raises(message, kind=RuntimeError):
    """The whole message, from its first letter."""
    return pytest.raises(kind, match="^" + re.escape(message))


def put(value):
    """The same ids, but for the one at flat index 5."""

    def change(ids):
        ids = ids.clone()
        ids.view(-1)[5] = value
        return ids

    return change


@pytest.mark.parametrize("to", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("value", [-1, -100, 11, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("op", ["embed_linear_tanh", "mlp_cross_entropy"])
def test_token_out_of_range(op, value, to):
    with raises(f"pymlp.{op}: tokens must be in [0, 11), got {value} at flat index 5"):
        changed(op, "tokens", lambda tokens: put(value)(tokens.to(to)))


@pytest.mark.parametrize("to", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("value", [-1, 11, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("op", LOSSES)
def test_target_out_of_range(op, value, to):
    name = "targets" if op == "mlp_cross_entropy" else "target"
    message = f"{name} must be in [0, 11) or ignore_index -100, got {value} at flat index 5"
    with raises(f"pymlp.{op}: {message}"):
        changed(op, name, lambda target: put(value)(target.to(to)))


def test_ids_of_64_bits_are_not_cut_to_32():
    with raises("pymlp.cross_entropy: target must be in [0, 11) or ignore_index -100, got 4294967"):
        changed("cross_entropy", "target", put(2**32 + 3))


def test_the_default_ignore_index_is_out_of_range_when_another_is_given():
    case = make_case("cross_entropy", ignored=1, ignore_index=3)
    with raises(
        "pymlp.cross_entropy: target must be in [0, 11) or ignore_index 3, got -100 at flat index 0"
    ):
        case.run(functional)


@pytest.mark.parametrize("to", ["float32", "bool", "int16", "uint8"])
@pytest.mark.parametrize("op", ["embed_linear_tanh", "mlp_cross_entropy"])
def test_tokens_of_a_wrong_dtype(op, to):
    with raises(f"pymlp.{op}: tokens must be int64 or int32, got {to}"):
        changed(op, "tokens", lambda tokens: tokens.to(getattr(torch, to)))


@pytest.mark.parametrize("to", ["bool", "int16"])
@pytest.mark.parametrize("op", LOSSES)
def test_targets_of_a_wrong_dtype(op, to):
    name = "targets" if op == "mlp_cross_entropy" else "target"
    with raises(f"pymlp.{op}: {name} must be int64 or int32, got {to}"):
        changed(op, name, lambda target: target.to(getattr(torch, to)))


@pytest.mark.parametrize("to", ["bool", "int16"])
@pytest.mark.parametrize(("input", "target"), [((11,), ()), ((7, 11, 2), (7, 2)), ((7, 11), (7,))])
def test_targets_of_a_wrong_dtype_where_torchs_own_op_runs(input, target, to):
    arguments = torch.zeros(input), torch.zeros(target, dtype=getattr(torch, to))
    with raises(f"pymlp.cross_entropy: target must be int64 or int32, got {to}"):
        pymlp.cross_entropy(*arguments)
    with pytest.raises(RuntimeError, match="dtype"):
        pymlp.reference.cross_entropy(*arguments)


# What the first parameter of each op must be, and the others like it.
FIRST = {"cross_entropy": "input", "linear_cross_entropy": "input"}


@pytest.mark.parametrize("op", OPS)
def test_parameters_of_a_wrong_dtype(op):
    first = FIRST.get(op, "embedding")
    with raises(f"pymlp.{op}: {first} must be float64, float32, bfloat16 or float16, got int32"):
        changed(op, first, torch.Tensor.int)
    for name in float32_case(op).names:
        if name != first:
            with raises(f"pymlp.{op}: {name} must be float32 like {first}, got float64"):
                changed(op, name, torch.Tensor.double)


@pytest.mark.parametrize(
    ("op", "name", "message"),
    [
        ("embed_linear_tanh", "weight", "must have shape (9, 12), got (9, 11)"),
        ("embed_linear_tanh", "bias", "must have shape (9), got (8)"),
        ("embed_linear_tanh", "tokens", "weight must have shape (9, 8), got (9, 12)"),
        ("embed_linear_tanh", "embedding", "weight must have shape (9, 9), got (9, 12)"),
        ("linear_cross_entropy", "linear_weight", "must have shape (11, 9), got (11, 8)"),
        ("linear_cross_entropy", "linear_bias", "must have shape (11), got (10)"),
        ("linear_cross_entropy", "target", "must have shape (7), got (6)"),
        ("mlp_cross_entropy", "hidden_weight", "must have shape (9, 12), got (9, 11)"),
        ("mlp_cross_entropy", "hidden_bias", "must have shape (9), got (8)"),
        ("mlp_cross_entropy", "output_weight", "must have shape (11, 9), got (11, 8)"),
        ("mlp_cross_entropy", "output_bias", "must have shape (11), got (10)"),
        ("mlp_cross_entropy", "targets", "must have shape (7), got (6)"),
        ("cross_entropy", "target", "must have shape (7), got (6)"),
    ],
)
def test_last_dimension_too_short(op, name, message):
    if not message.startswith("weight"):
        message = f"{name} {message}"
    with raises(f"pymlp.{op}: {message}"):
        changed(op, name, lambda t: t[..., :-1])


@pytest.mark.parametrize(
    ("op", "name"),
    [
        ("embed_linear_tanh", "embedding"),
        ("embed_linear_tanh", "weight"),
        ("linear_cross_entropy", "linear_weight"),
        ("mlp_cross_entropy", "embedding"),
        ("mlp_cross_entropy", "hidden_weight"),
        ("mlp_cross_entropy", "output_weight"),
    ],
)
def test_matrices_must_have_two_dimensions(op, name):
    rows, columns = float32_case(op).parameters[name].shape
    with raises(f"pymlp.{op}: {name} must have 2 dimensions, got shape ({columns})"):
        changed(op, name, lambda t: t[0])
    with raises(f"pymlp.{op}: {name} must have 2 dimensions, got shape (1, {rows}, {columns})"):
        changed(op, name, lambda t: t[None])


def test_tokens_without_positions():
    with raises("pymlp.embed_linear_tanh: tokens must have shape (..., block_size), got a single"):
        changed("embed_linear_tanh", "tokens", lambda t: t[0, 0])
    for op in ("embed_linear_tanh", "mlp_cross_entropy"):
        with raises(f"pymlp.{op}: tokens must have a last dimension of at least 1, got 0"):
            changed(op, "tokens", lambda t: t[:, :0])


def test_leading_shapes_that_differ():
    with raises("pymlp.linear_cross_entropy: target must have shape (1, 7), got (7,)"):
        changed("linear_cross_entropy", "input", lambda t: t[None])
    with raises("pymlp.mlp_cross_entropy: targets must have shape (1, 7), got (7,)"):
        changed("mlp_cross_entropy", "tokens", lambda t: t[None])
    for op, name in (("linear_cross_entropy", "input"), ("mlp_cross_entropy", "tokens")):
        with raises(f"pymlp.{op}: {name} must have at least 1 dimension, got shape ()"):
            changed(op, name, lambda t: t[0, 0])


@pytest.mark.parametrize("op", ["cross_entropy", "linear_cross_entropy"])
def test_class_weights(op):
    case = float32_case(op)
    with raises(f"pymlp.{op}: weight must have shape (11), got (10)"):
        case.run(functional, weight=torch.ones(10))
    with raises(f"pymlp.{op}: weight must be float32 like input, got float64"):
        case.run(functional, weight=torch.ones(11, dtype=torch.float64))


@pytest.mark.parametrize("op", LOSSES)
def test_options(op):
    case = float32_case(op)
    with raises(f"pymlp.{op}: reduction must be 'mean', 'sum' or 'none', got 'max'", ValueError):
        case.run(functional, reduction="max")
    for value in (-0.1, 1.5, float("nan")):
        with raises(f"pymlp.{op}: label_smoothing must be between 0 and 1, got {value}"):
            case.run(functional, label_smoothing=value)


@pytest.mark.parametrize("softcap", [0.0, -2.0, float("nan")])
def test_softcap(softcap):
    message = f"pymlp.linear_cross_entropy: softcap must be positive or None, got {softcap}"
    with raises(message, ValueError):
        float32_case("linear_cross_entropy").run(functional, softcap=softcap)


@pytest.mark.parametrize("op", OPS)
def test_a_tensor_on_another_device(op):
    # A shape is all that the meta device knows: computing with one would give garbage.
    case = float32_case(op)
    first = FIRST.get(op, "embedding")
    for name, value in (case.ids | case.parameters).items():
        if name == first:
            continue
        with raises(f"pymlp.{op}: {name} must be on {value.device} like {first}, got meta"):
            case.run(functional, **{name: value.to("meta")})


@pytest.mark.parametrize(("value", "kind"), [([1], "list"), (None, "NoneType")])
@pytest.mark.parametrize("op", OPS)
def test_an_argument_that_is_no_tensor(op, value, kind):
    case = float32_case(op)
    for name in case.ids | case.parameters:
        if value is None and name.endswith("bias"):
            continue  # may be left out
        with raises(f"pymlp.{op}: {name} must be a tensor, got {kind}", TypeError):
            case.run(functional, **{name: value})


@pytest.mark.parametrize("op", OPS)
def test_all_tensors_on_the_meta_device_give_shapes(op):
    case = float32_case(op)
    moved = {name: value.to("meta") for name, value in (case.ids | case.parameters).items()}
    output = case.run(functional, **moved)
    assert output.device.type == "meta"
    assert output.shape == case.run(functional).shape


def test_errors_of_a_backward_op():
    tokens, embedding, weight = (
        torch.zeros(2, 1, dtype=torch.int64),
        torch.ones(3, 4),
        torch.ones(5, 4),
    )
    with raises(
        "pymlp.embed_linear_tanh: hidden and dhidden must hold 5 numbers for each of 2 examples, "
        "got 10 and 5"
    ):
        ops.embed_linear_tanh_backward(tokens, embedding, weight, torch.ones(2, 5), torch.ones(5))
    arguments = (torch.ones(2, 3), torch.zeros(2, dtype=torch.int64), torch.ones(2, 2), None, -100)
    with raises("pymlp.cross_entropy: grad_output must have shape (2), got ()"):
        ops.cross_entropy_backward(torch.ones(()), *arguments, 0, 0.0)
    with raises("pymlp.cross_entropy: grad_output must be float32 like the loss, got float64"):
        ops.cross_entropy_backward(torch.ones((), dtype=torch.float64), *arguments, 1, 0.0)
    with raises("pymlp.cross_entropy: reduction must be 0 (none), 1 (mean) or 2 (sum), got 3"):
        ops.cross_entropy_backward(torch.ones(()), *arguments, 3, 0.0)


def test_nothing_is_left_behind_by_an_error():
    case = float32_case("embed_linear_tanh")
    before = case.run(functional)
    with pytest.raises(RuntimeError):
        changed("embed_linear_tanh", "tokens", put(11))
    assert torch.equal(pymlp.embed_linear_tanh(**case.ids, **case.parameters), before)
