"""The lecture's sizes with 65,536 examples: gradients that are sums of very many float32 terms."""

import pytest
import torch
from ops_testing import OPS, TOLERANCE, errors, make_case, plain, relative_error, results

from pymlp import functional


@pytest.fixture(scope="module", params=OPS)
def large(request):
    """A case in float32, the truth about it, and PyTorch's own float32 errors."""
    case = make_case(request.param, N=65_536, T=3, V=27, E=10, H=200).to(torch.float32)
    return case, results(plain, case.to(torch.float64)), errors(plain, case, torch.float32)


def test_no_worse_than_torch_over_many_rows(large, isa):
    case, truth, torchs = large
    for name, found in results(functional, case).items():
        error = relative_error(found, truth[name])
        limit = torchs[name] + TOLERANCE[torch.float32]
        assert error <= limit, f"{case.op} {name}: error {error:.2e}, PyTorch's {torchs[name]:.2e}"
