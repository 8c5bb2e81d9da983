"""torch.library.opcheck, fake tensors, make_fx, torch.compile and torch.export."""

import io
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from ops_testing import OPS, make_case, plain, results
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import pymlp
from pymlp import functional
from pymlp._library import ops

pytestmark = pytest.mark.usefixtures("one_thread", "device")

NONE, MEAN, SUM = 0, 1, 2


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# --- the raw ops ----------------------------------------------------------------------------------


def raw_calls(dtype, bias, n):
    """Every raw op with arguments it is called with."""
    case = make_case("mlp_cross_entropy", N=n, bias=bias, seed=n).to(dtype)
    tokens, targets = case.ids.values()
    embedding, hidden_weight, hidden_bias, output_weight, output_bias = case.parameters.values()
    hidden = functional.embed_linear_tanh(tokens, embedding, hidden_weight, hidden_bias)
    logits = F.linear(hidden, output_weight, output_bias)
    class_weight = torch.linspace(0.5, 1.5, 11, dtype=dtype) if bias else None
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    one, rows = torch.ones((), dtype=wide), torch.ones(n, dtype=wide)
    _, softmax = ops.cross_entropy_forward(logits, targets, None, -100, MEAN, 0.0)
    linear = (hidden, output_weight, output_bias, targets, class_weight)
    model = (tokens, targets, *case.parameters.values())
    return [
        (ops.embed_linear_tanh_forward, (tokens, embedding, hidden_weight, hidden_bias)),
        (ops.embed_linear_tanh_backward, (tokens, embedding, hidden_weight, hidden, hidden)),
        (ops.cross_entropy_forward, (logits, targets, class_weight, -100, MEAN, 0.1)),
        (ops.cross_entropy_forward, (logits, targets, None, 3, NONE, 0.0)),
        (ops.cross_entropy_backward, (one, logits, targets, softmax, None, -100, SUM, 0.1)),
        (ops.cross_entropy_backward, (rows, logits, targets, softmax, None, -100, NONE, 0.0)),
        (ops.linear_cross_entropy_forward, (*linear, -100, MEAN, 0.0, 0.1, 2.0)),
        (ops.linear_cross_entropy_forward, (*linear, -100, NONE, 0.1, 0.0, 0.0)),
        (ops.linear_cross_entropy_forward_backward, (one, *linear, -100, MEAN, 0.0, 0.1, 2.0)),
        (ops.linear_cross_entropy_forward_backward, (rows, *linear, -100, NONE, 0.1, 0.0, 0.0)),
        (ops.linear_cross_entropy_forward_backward, (None, *linear, -100, SUM, 0.0, 0.0, 0.0)),
        (ops.mlp_cross_entropy_forward, (*model, -100, MEAN, 0.1)),
        (ops.mlp_cross_entropy_forward_backward, (None, *model, -100, MEAN, 0.0)),
        (ops.mlp_cross_entropy_forward_backward, (one, *model, -100, SUM, 0.1)),
    ]


@pytest.mark.parametrize(
    ("dtype", "bias", "n"),
    [(torch.float32, True, 7), (torch.float64, False, 1), (torch.bfloat16, True, 3)],
    ids=str,
)
def test_opcheck(dtype, bias, n):
    for op, arguments in raw_calls(dtype, bias, n):
        torch.library.opcheck(op.default, arguments)


# --- tensors without values -----------------------------------------------------------------------


def scaled_gradients(case):
    """A function of ids and parameters: the gradients of three times the sum of the outputs."""

    def gradients(*arguments):
        ids, parameters = arguments[: len(case.ids)], arguments[len(case.ids) :]
        leaves = [parameter.detach().requires_grad_() for parameter in parameters]
        output = case.run(functional, *leaves, **dict(zip(case.ids, ids, strict=True)))
        return torch.autograd.grad(3 * output.sum(), leaves)

    return gradients, [*case.ids.values(), *case.parameters.values()]


@pytest.mark.parametrize("op", OPS)
def test_fake_tensors(op):
    gradients, arguments = scaled_gradients(make_case(op))
    with FakeTensorMode() as mode:
        found = gradients(*map(mode.from_tensor, arguments))
    assert [g.shape for g in found] == [g.shape for g in gradients(*arguments)]


@pytest.mark.parametrize("tracing_mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("op", OPS)
def test_make_fx(op, tracing_mode):
    gradients, arguments = scaled_gradients(make_case(op))
    graph = make_fx(gradients, tracing_mode=tracing_mode)(*arguments)
    _, others = scaled_gradients(make_case(op, seed=1))
    torch.testing.assert_close(graph(*others), gradients(*others))


# --- torch.compile --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("embed_linear_tanh", {}),
        ("cross_entropy", {"label_smoothing": 0.1, "class_weight": True}),
        ("linear_cross_entropy", {"z_loss": 0.1, "softcap": 3.0}),
        ("linear_cross_entropy", {"reduction": "none", "bias": False}),
        ("mlp_cross_entropy", {}),
    ],
)
def test_compile_without_graph_breaks_for_changing_batch_sizes(op, options):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(getattr(functional, op), fullgraph=True, dynamic=True, backend=counter)
    graphs = set()
    for N in (7, 12, 33):
        case = make_case(op, N=N, **options).to(torch.float32)
        found, expected = results(SimpleNamespace(**{op: compiled}), case), results(plain, case)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)
        graphs.add(counter.frame_count)
    assert len(graphs) == 1, "compiled again for another batch size"


def all_ops(tokens, targets, embedding, weight, bias, output_weight, output_bias):
    hidden = pymlp.embed_linear_tanh(tokens, embedding, weight, bias)
    logits = F.linear(hidden, output_weight, output_bias)
    return (
        pymlp.cross_entropy(logits, targets)
        + pymlp.linear_cross_entropy(hidden, output_weight, targets, linear_bias=output_bias)
        + pymlp.mlp_cross_entropy(
            tokens, targets, embedding, weight, bias, output_weight, output_bias
        )
    )


def test_inductor_compiles_forward_and_backward_of_all_ops():
    compiled = torch.compile(all_ops, fullgraph=True, dynamic=True, backend="inductor")
    for N in (7, 12):
        case = make_case("mlp_cross_entropy", N=N).to(torch.float32)
        found, expected = (
            torch.autograd.grad(function(*case.ids.values(), *leaves), leaves)
            for function, leaves in ((compiled, case.leaves()), (all_ops, case.leaves()))
        )
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("op", OPS)
def test_a_compiled_backward_can_be_scaled(op):
    compiled = torch.compile(getattr(functional, op), fullgraph=True, backend="aot_eager")
    case = make_case(op)
    leaves = case.leaves()
    output = case.run(SimpleNamespace(**{op: compiled}), *leaves)
    scale = torch.full_like(output, -2.5)
    found = torch.autograd.grad(output, leaves, scale)
    expected = torch.autograd.grad(case.run(plain, *leaves), leaves, scale)
    torch.testing.assert_close(found, expected)


def test_errors_survive_compilation(check_ids):
    compiled = torch.compile(functional.embed_linear_tanh, fullgraph=True, backend="aot_eager")
    case = make_case("embed_linear_tanh")
    case.ids["tokens"][1, 2] = 11
    with pytest.raises(RuntimeError, match=r"tokens must be in \[0, 11\), got 11 at flat index 5"):
        case.run(SimpleNamespace(embed_linear_tanh=compiled))


# --- torch.export ---------------------------------------------------------------------------------


class Model(torch.nn.Module):
    """Logits and the sum of all losses."""

    def __init__(self):
        super().__init__()
        self.mlp = pymlp.MLP(pymlp.MLPConfig(vocab_size=11, n_embd=4, n_hidden=9))

    def forward(self, tokens, targets):
        return self.mlp(tokens), all_ops(tokens, targets, *self.mlp.parameters())


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_a_dynamic_batch_saved_and_loaded(strict):
    torch.manual_seed(0)
    module = Model()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(
        module,
        (torch.randint(11, (7, 3)), torch.randint(11, (7,))),
        dynamic_shapes=({0: batch}, {0: batch}),
        strict=strict,
    )
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    inputs = torch.randint(11, (20, 3)), torch.randint(11, (20,))
    with torch.no_grad():
        torch.testing.assert_close(loaded(*inputs), module(*inputs))
