"""autocast, checkpointing, DDP, loss scaling, no_grad and inference_mode."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from ops_testing import DTYPES, LOSSES, OPS, make_case, plain, relative_error, results
from torch.utils.checkpoint import checkpoint

from pymlp import functional

pytestmark = pytest.mark.usefixtures("one_thread", "device")

every_op = pytest.mark.parametrize("op", OPS)
HALVES = [torch.bfloat16, torch.float16]


# --- autocast -------------------------------------------------------------------------------------


@every_op
@pytest.mark.parametrize("lower", HALVES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_autocast_gives_the_dtypes_of_torch(device, op, lower, dtype):
    case = make_case(op).to(dtype)
    for reduction in ("mean", "none"):
        options = {"reduction": reduction} if op in LOSSES else {}
        ours, torchs = case.leaves(), case.leaves()
        with torch.autocast(device, lower):
            output = case.run(functional, *ours, **options)
            expected = case.run(plain, *torchs, **options)
        assert output.dtype == expected.dtype
        output.sum().backward()
        expected.sum().backward()
        for leaf, other in zip(ours, torchs, strict=True):
            assert leaf.grad.dtype == leaf.dtype == dtype
            torch.testing.assert_close(leaf.grad, other.grad, rtol=0.1, atol=0.05)


@every_op
@pytest.mark.parametrize("lower", HALVES, ids=str)
def test_autocast_is_no_worse_than_torchs(device, op, lower):
    case = make_case(op, N=50, V=27, E=10, H=40).to(torch.float32)
    truth = results(plain, case.to(torch.float64))
    with torch.autocast(device, lower):
        found, torchs = results(functional, case), results(plain, case)
    for name, value in truth.items():
        limit = relative_error(torchs[name], value) + 2 * torch.finfo(lower).eps
        assert relative_error(found[name], value) <= limit, name


@every_op
def test_autocast_with_parameters_of_two_dtypes(device, op):
    # torch.nn.Linear takes such inputs under autocast, so these must too.
    case = make_case(op).to(torch.float32)
    first = case.names[0]
    with torch.autocast(device, torch.bfloat16):
        expected = case.run(functional)
        case.parameters[first] = case.parameters[first].bfloat16()
        found = case.run(functional)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


@every_op
def test_autocast_compiled(device, op):
    torch._dynamo.reset()
    case = make_case(op).to(torch.float32)
    compiled = torch.compile(getattr(functional, op), fullgraph=True, backend="aot_eager")
    with torch.autocast(device, torch.bfloat16):
        expected = results(functional, case)
        found = results(SimpleNamespace(**{op: compiled}), case)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name], value, rtol=0.02, atol=0.01)


@every_op
def test_autocast_with_second_derivatives_and_transforms(device, op):
    case = make_case(op).to(torch.float32)

    def second(module):
        leaves = case.leaves()
        with torch.autocast(device, torch.bfloat16):
            output = case.run(module, *leaves).sum()
        first = torch.autograd.grad(output, leaves, create_graph=True)
        penalty = sum(g.square().sum() for g in first)
        return torch.autograd.grad(penalty, leaves, materialize_grads=True)

    for found, expected in zip(second(functional), second(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05 * expected.abs().max())
    with torch.autocast(device, torch.bfloat16):
        output, _ = torch.func.vjp(lambda *p: case.run(functional, *p), *case.leaves())
        assert output.dtype == case.run(functional).dtype


@every_op
def test_autocast_of_the_backward_changes_nothing(device, op):
    case = make_case(op).to(torch.float32)
    found = []
    for enabled in (False, True):
        leaves = case.leaves()
        output = case.run(functional, *leaves).sum()
        with torch.autocast(device, torch.bfloat16, enabled=enabled):
            first = torch.autograd.grad(output, leaves, create_graph=True)
        penalty = sum(g.square().sum() for g in first)
        found.append(first + torch.autograd.grad(penalty, leaves, materialize_grads=True))
    for without, under in zip(*found, strict=True):
        assert torch.equal(without, under)


# --- loss scaling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("op", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_scaled_losses_in_float16_do_not_underflow(device, isa, op, reduction):
    # A gradient of the mean over 4,096 rows is below 6e-8, the smallest float16, for most entries.
    # torch.amp.GradScaler multiplies the loss by 65,536; that must reach them before the rounding.
    case = make_case(op, N=4096, V=27, E=10, H=20, reduction=reduction).to(torch.float16)
    scale = torch.tensor(65536.0 if reduction == "mean" else 16.0, dtype=torch.float64)

    def gradients(module, case):
        leaves = case.leaves()
        with torch.autocast(device, torch.float16):  # the loss comes in float32, as for GradScaler
            loss = case.run(module, *leaves)
        return torch.autograd.grad(loss, leaves, scale.to(loss.dtype))

    truth = gradients(plain, case.to(torch.float64))
    for ours, torchs, exact in zip(
        gradients(functional, case), gradients(plain, case), truth, strict=True
    ):
        limit = relative_error(torchs, exact) + torch.finfo(torch.float16).eps
        assert relative_error(ours, exact) <= limit
        lost = (ours == 0) & (exact.abs() > 1e-7)
        assert not lost.any()


def test_large_grad_output_in_float16(isa):
    case = make_case("linear_cross_entropy", N=4096, V=27, H=20).to(torch.float16)
    leaves = case.leaves()
    loss = case.run(functional, *leaves)
    assert loss.dtype == torch.float16
    gradients = torch.autograd.grad(loss, leaves, torch.tensor(32768.0).half())
    wide = case.to(torch.float64)
    wide_leaves = wide.leaves()
    truth = torch.autograd.grad(wide.run(plain, *wide_leaves) * 32768, wide_leaves)
    for found, exact in zip(gradients, truth, strict=True):
        assert relative_error(found, exact) < 2 * torch.finfo(torch.float16).eps


# --- checkpointing, no_grad, DDP ------------------------------------------------------------------


@every_op
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint(op, use_reentrant):
    case = make_case(op)
    expected, leaves = case.leaves(), case.leaves()
    case.run(functional, *expected).sum().backward()
    output = checkpoint(
        lambda *parameters: case.run(functional, *parameters).sum(),
        *leaves,
        use_reentrant=use_reentrant,
    )
    output.backward()
    for found, other in zip(leaves, expected, strict=True):
        assert torch.equal(found.grad, other.grad)


@every_op
def test_no_grad_and_inference_mode(op):
    case = make_case(op)
    leaves = case.leaves()
    expected = case.run(functional, *leaves)
    assert expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            output = case.run(functional, *leaves)
        assert not output.requires_grad
        assert output.is_inference() == (mode is torch.inference_mode)
        assert torch.equal(output, expected)
    assert not case.run(functional).requires_grad  # of inputs that do not


DDP = """
import os
import sys
import torch
import torch.distributed as dist
import pymlp

rank, file, device = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_default_device(device)
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
torch.manual_seed(0)
model = pymlp.MLP(pymlp.MLPConfig(vocab_size=11, n_embd=4, n_hidden=9))
tokens, targets = torch.randint(11, (8, 3)), torch.randint(11, (8,))
model.loss(tokens, targets).backward()
whole = [parameter.grad.clone() for parameter in model.parameters()]
model.zero_grad()
parallel = torch.nn.parallel.DistributedDataParallel(model)
half = slice(4 * rank, 4 * rank + 4)
pymlp.cross_entropy(parallel(tokens[half]), targets[half]).backward()
torch.testing.assert_close([parameter.grad for parameter in model.parameters()], whole)
dist.destroy_process_group()
os._exit(0)  # gloo's threads may abort an orderly end of the interpreter
"""


def test_ddp_averages_the_gradients_of_two_processes(device, tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", DDP, str(rank), str(tmp_path / "rendezvous"), device],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
