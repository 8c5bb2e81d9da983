"""`import pymlp` loads little, needs no GPU and leaves torch as it was."""

import os
import subprocess
import sys

# What is used in few places is imported there.
LAZY = ("click", "matplotlib", "rich", "safetensors", "tomli_w")

CODE = f"""
import sys
import torch
state = lambda: (
    torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype(),
    torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
    torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision(),
    torch.get_rng_state().tolist(),
)
before = state()
import warnings
filters = list(warnings.filters)
import pymlp
assert state() == before, "torch's global state has changed"
assert list(warnings.filters) == filters, "the warnings filters have changed"
loaded = [name for name in {LAZY} if name in sys.modules]
assert not loaded, f"imported by pymlp: {{loaded}}"
loss = pymlp.cross_entropy(torch.zeros(2, 4), torch.tensor([0, 1]))
print(round(loss.item(), 4))
"""


def test_import_is_lean_and_leaves_torch_alone_without_a_gpu():
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYMLP_ISA": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "1.3863\n"  # log 4, and nothing else is printed
    assert run.stderr == ""
