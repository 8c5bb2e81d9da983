"""What the operators hold in memory: never the (N, V) logits, nor a copy of them."""

from pathlib import Path

import pytest
import torch
from ops_testing import OPS, make_case

from pymlp import functional

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes():
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("op", ["linear_cross_entropy", "mlp_cross_entropy"])
def test_the_logits_never_exist_as_a_whole(op, reduction):
    N, V = 8192, 8192
    case = make_case(op, N=N, V=V, T=2, E=2, H=4, reduction=reduction).to(torch.float32)
    leaves = case.leaves()
    try:
        CLEAR.write_text("5")  # the peak is what is held now
    except OSError as error:
        pytest.skip(f"this system does not tell the peak of memory: {error}")
    before = peak_bytes()
    case.run(functional, *leaves).sum().backward()
    logits = N * V * torch.float32.itemsize  # 256 MiB
    assert peak_bytes() - before < logits / 4


@pytest.mark.parametrize("op", OPS)
def test_no_saved_tensor_is_larger_than_inputs_and_output(op):
    case = make_case(op, N=50, V=40, E=5, H=30).to(torch.float32)
    saved = []

    def pack(tensor):
        saved.append(tensor.numel())
        return tensor

    leaves = case.leaves()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = case.run(functional, *leaves)
    inputs = [*case.ids.values(), *leaves]
    assert saved
    # Two numbers a row in cross_entropy; elsewhere inputs and the output are enough.
    rows = 2 * 50 if op == "cross_entropy" else 0
    assert sum(saved) <= sum(t.numel() for t in inputs) + output.numel() + rows
