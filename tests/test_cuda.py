"""What CUDA has and the CPU has not: streams, graphs, several devices, ids that nobody checks.

The contract of the operators is tested on GPUs too, by the tests of the operators (fixture device).
"""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from ops_testing import DTYPES, GPU, OPS, assert_same, make_case, relative_error, results
from torch._subclasses.fake_tensor import FakeTensorMode

import pymlp
from pymlp import debug, functional
from pymlp._library import CUDA_ARCHITECTURES

every_op = pytest.mark.parametrize("op", OPS)
LECTURE = {"N": 500, "V": 27, "E": 10, "H": 200}
RAW_OPS = [
    "embed_linear_tanh_forward",
    "embed_linear_tanh_backward",
    "cross_entropy_forward",
    "cross_entropy_backward",
    "linear_cross_entropy_forward",
    "linear_cross_entropy_forward_backward",
    "mlp_cross_entropy_forward",
    "mlp_cross_entropy_forward_backward",
    "mlp_logits",
]
# In place, and where CUDA kernels run.
TRAINING_OPS = [
    "training_shared_bytes",
    "train_models",
    "training_rates",
    "step_batch",
    "mlp_update",
    "dropout_mask",
]


# --- what can be shown without a GPU --------------------------------------------------------------


@pytest.mark.parametrize("op", RAW_OPS)
def test_every_op_is_registered_for_cuda_exactly_where_kernels_were_compiled(op):
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert has_kernel(f"pymlp::{op}", "CPU")
    assert has_kernel(f"pymlp::{op}", "CUDA") == bool(CUDA_ARCHITECTURES)


@pytest.mark.parametrize("op", TRAINING_OPS)
def test_training_ops_are_registered_exactly_where_kernels_were_compiled(op):
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert not has_kernel(f"pymlp::{op}", "CPU")
    assert has_kernel(f"pymlp::{op}", "CUDA") == bool(CUDA_ARCHITECTURES)


def test_no_op_is_missing_in_these_tests():
    registered = torch._C._dispatch_get_all_op_names()
    names = {name.removeprefix("pymlp::") for name in registered if name.startswith("pymlp::")}
    assert names == {*RAW_OPS, *TRAINING_OPS, "cuda_architectures", "check_ids"}


@every_op
def test_tensors_on_a_gpu_without_values_give_shapes_there(op, monkeypatch):
    monkeypatch.setattr(functional, "KERNEL_DEVICES", ("cpu", "cuda"))
    case = make_case(op).to(torch.bfloat16)
    with FakeTensorMode():

        def on_gpu(tensors):
            return {
                k: torch.empty(t.shape, dtype=t.dtype, device="cuda") for k, t in tensors.items()
            }

        output = case.run(functional, **on_gpu(case.ids), **on_gpu(case.parameters))
    assert output.device.type == "cuda"
    assert output.dtype == torch.bfloat16
    assert output.shape == case.run(functional).shape


def test_checking_ids_is_a_switch_that_tells_how_it_was():
    before = debug.check_ids(True)
    assert debug.check_ids(False) is True
    assert debug.check_ids(before) is False


@pytest.mark.parametrize(("value", "on"), [("", False), ("0", False), ("1", True)])
def test_checking_ids_by_the_environment(value, on):
    code = "import pymlp; print(pymlp.debug.check_ids(False))"
    assert run_python(code, PYMLP_CHECK_IDS=value).stdout == f"{on}\n"


def test_another_value_in_the_environment_is_an_error():
    run = run_python("import pymlp", PYMLP_CHECK_IDS="yes")
    assert run.returncode == 1
    assert "PYMLP_CHECK_IDS: must be 0 or 1, got 'yes'" in run.stderr.splitlines()[-1]


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


# --- with a GPU -----------------------------------------------------------------------------------


def on_a_gpu(test):
    without = pytest.mark.skipif(GPU != "cuda", reason="needs a GPU and CUDA kernels")
    return pytest.mark.gpu(without(test))


def gpu_case(op, dtype=torch.float32, **sizes):
    with torch.device("cuda"):
        return make_case(op, **sizes).to(dtype)


def moved(case, device):
    """The same case on another device."""

    def move(values):
        return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in values.items()}

    return type(case)(case.op, move(case.ids), move(case.parameters), move(case.options))


def gradients(case, leaves):
    output = case.run(functional, *leaves)
    return [output, *torch.autograd.grad(output, leaves, torch.ones_like(output))]


@on_a_gpu
@every_op
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gpu_agrees_with_the_cpu(op, dtype):
    case = make_case(op, **LECTURE).to(dtype)
    found = gradients(moved(case, "cuda"), moved(case, "cuda").leaves())
    limit = 2 * torch.finfo(dtype).eps if dtype.itemsize == 2 else 64 * torch.finfo(dtype).eps
    for ours, expected in zip(found, gradients(case, case.leaves()), strict=True):
        assert relative_error(ours.cpu(), expected.double()) <= limit


@on_a_gpu
@every_op
def test_no_call_waits_for_the_device(op):
    case = gpu_case(op, **LECTURE)
    leaves = case.leaves()
    gradients(case, leaves)  # the first call may load code, which waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradients(case, leaves)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_a_gpu
@every_op
@pytest.mark.parametrize("sizes", [{}, LECTURE, {"N": 1000, "V": 5000, "H": 64}], ids=str)
def test_a_captured_graph_computes_with_new_inputs(op, sizes):
    case, other = gpu_case(op, **sizes), gpu_case(op, seed=2, **sizes)
    leaves = case.leaves()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            gradients(case, leaves)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = gradients(case, leaves)
    with torch.no_grad():
        for leaf, value in zip(leaves, other.leaves(), strict=True):
            leaf.copy_(value)
        for name, ids in case.ids.items():
            ids.copy_(other.ids[name])
    for _ in range(2):
        graph.replay()
        for ours, expected in zip(found, gradients(other, other.leaves()), strict=True):
            assert torch.equal(ours, expected)


@on_a_gpu
@every_op
def test_calls_run_on_the_current_stream(op):
    # On another stream than that of the slow copy, a kernel would read what is not there yet.
    case = gpu_case(op, **LECTURE)
    expected = gradients(case, case.leaves())
    late = [torch.full_like(leaf, torch.nan).requires_grad_() for leaf in case.leaves()]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        with torch.no_grad():
            for leaf, value in zip(late, case.leaves(), strict=True):
                leaf.copy_(value)
        found = gradients(case, late)
    stream.synchronize()
    for ours, value in zip(found, expected, strict=True):
        assert torch.equal(ours, value)


@on_a_gpu
@every_op
def test_tensors_of_another_than_the_current_device(op):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    case = gpu_case(op, **LECTURE)
    expected = gradients(case, case.leaves())
    other = moved(case, "cuda:1")
    assert torch.cuda.current_device() == 0
    for ours, value in zip(gradients(other, other.leaves()), expected, strict=True):
        assert ours.device == torch.device("cuda:1")
        assert torch.equal(ours.cpu(), value.cpu())
    assert torch.cuda.current_device() == 0


@on_a_gpu
@every_op
def test_tensors_of_two_devices_are_an_error(op):
    case = gpu_case(op)
    for name, value in (case.ids | case.parameters).items():
        with pytest.raises(RuntimeError, match=rf"^pymlp\.{op}: .* must be on c.* like .*, got c"):
            case.run(functional, **{name: value.cpu()})


@on_a_gpu
@every_op
@pytest.mark.parametrize("value", [-1, 11, 2**31 - 1, 2**40, -(2**40)])
def test_ids_out_of_range_give_nan_and_touch_nothing_or_raise(op, value, request):
    case = gpu_case(op, reduction="sum") if op != OPS[0] else gpu_case(op)
    name, ids = next(iter(case.ids.items()))
    ids = ids.clone()
    ids.view(-1)[5] = value
    leaves = case.leaves()
    output = case.run(functional, *leaves, **{name: ids})
    torch.autograd.grad(output.sum(), leaves)
    torch.cuda.synchronize()  # an access outside of any memory would show here
    if op == OPS[0]:
        row = 5 // 3
        assert output[row].isnan().all()
        assert output[:row].isfinite().all()
        assert output[row + 1 :].isfinite().all()
    else:
        assert output.isnan()
    request.getfixturevalue("check_ids")
    with pytest.raises(RuntimeError, match=rf"^pymlp\.{op}: {name} must be in .*, got {value} at"):
        case.run(functional, *leaves, **{name: ids})


@on_a_gpu
@every_op
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_bits_run_after_run(op, dtype):
    for sizes in (LECTURE, {"N": 20_000, "V": 27, "E": 10, "H": 200}, {"N": 999, "V": 5003}):
        with torch.device("cuda"):
            case = make_case(op, **sizes).to(dtype)
            expected = results(functional, case)
            for _ in range(5):
                assert_same(results(functional, case), expected)


@on_a_gpu
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("op", ["linear_cross_entropy", "mlp_cross_entropy"])
def test_the_logits_never_exist_as_a_whole(op, reduction):
    N, V = 8192, 32768
    case = gpu_case(op, N=N, V=V, T=2, E=2, H=4, reduction=reduction)
    leaves = case.leaves()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    case.run(functional, *leaves).sum().backward()
    logits = N * V * torch.float32.itemsize  # 1 GiB
    assert torch.cuda.max_memory_allocated() - before < logits / 4


@on_a_gpu
def test_more_than_2_to_the_31_logits():
    N, V = 65_536 + 8, 32_768
    if torch.cuda.mem_get_info()[0] < 5 * N * V * 2:
        pytest.skip("needs 22 GB of the GPU's memory")
    input = torch.zeros(N, V, dtype=torch.bfloat16, device="cuda")
    input[-1, 7] = 20
    input.requires_grad_()
    target = torch.full((N,), 7, device="cuda")
    losses = pymlp.cross_entropy(input, target, reduction="none")
    assert losses[0].item() == pytest.approx(torch.tensor(float(V)).log().item(), rel=0.01)
    assert losses[-1].item() == pytest.approx(0, abs=0.01)
    losses.sum().backward()
    assert input.grad[-2, 7].item() == pytest.approx(-1, abs=0.01)
    assert input.grad[-1].abs().max().item() == pytest.approx(0, abs=0.01)


@on_a_gpu
@every_op
def test_compiled_with_reduced_overhead(op):
    torch._dynamo.reset()
    case = gpu_case(op, **LECTURE)
    compiled = torch.compile(getattr(functional, op), fullgraph=True, mode="reduce-overhead")
    expected = gradients(case, case.leaves())
    for _ in range(4):  # eager, recorded, replayed
        torch.compiler.cudagraph_mark_step_begin()
        leaves = case.leaves()
        output = compiled(**case.ids, **dict(zip(case.names, leaves, strict=True)))
        found = [output, *torch.autograd.grad(output, leaves, torch.ones_like(output))]
        torch.testing.assert_close(found, expected)


@on_a_gpu
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_the_trainer_takes_the_fused_operators_and_the_same_trajectory(optimizer):
    data = pymlp.data.Dataset.from_lines(pymlp.data.names()[:500], block_size=3)
    config = pymlp.TrainConfig(
        steps=150, batch_size=32, lr=0.01, optimizer=optimizer, max_grad_norm=1.0
    )
    histories = []
    for device, engine in (("cuda", "autograd"), ("cpu", "native")):
        torch.manual_seed(0)
        model = pymlp.MLP(pymlp.MLPConfig(len(data.vocabulary), n_hidden=50)).to(device)
        trainer = pymlp.Trainer(model, data, replace(config, engine=engine))
        assert trainer.engine.name == engine
        histories.append(trainer.fit())
    found, expected = (history.losses for history in histories)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
