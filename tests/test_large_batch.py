"""The lecture's sizes with 65,536 examples: gradients that are sums of very many float32 terms."""

import pytest
import torch
from ops_testing import LOSSES, OPS, TOLERANCE, errors, make_case, plain, relative_error, results

from pymlp import functional

pytestmark = pytest.mark.usefixtures("device")

# Where all terms have one sign and go to one row: roundings of partial sums of 512 terms and of
# 128 partial sums, a quarter of a unit in the last place each.
SAME_SIGN = 1e-5


@pytest.fixture(scope="module", params=OPS)
def large(request, device):
    """A case in float32, the truth about it, and PyTorch's own float32 errors."""
    case = make_case(request.param, N=65_536, T=3, V=27, E=10, H=200).to(torch.float32)
    return case, results(plain, case.to(torch.float64)), errors(plain, case, torch.float32)


def test_no_worse_than_torch_over_many_rows(large, isa):
    case, truth, torchs = large
    for name, found in results(functional, case).items():
        error = relative_error(found, truth[name])
        limit = torchs[name] + TOLERANCE[torch.float32]
        assert error <= limit, f"{case.op} {name}: error {error:.2e}, PyTorch's {torchs[name]:.2e}"


@pytest.mark.parametrize("op", ["embed_linear_tanh", "linear_cross_entropy", "mlp_cross_entropy"])
def test_no_worse_than_torch_where_every_example_has_the_same_token(op, isa):
    case = make_case(op, N=65_536, T=2, V=5, E=3, H=16).to(torch.float32)
    for ids in case.ids.values():
        ids.zero_()

    def gradients(module, case):
        leaves = case.leaves()
        output = case.run(module, *leaves)
        return torch.autograd.grad(output, leaves, torch.ones_like(output))

    truth = gradients(plain, case.to(torch.float64))
    for name, ours, torchs, exact in zip(
        case.names, gradients(functional, case), gradients(plain, case), truth, strict=True
    ):
        limit = relative_error(torchs, exact) + SAME_SIGN
        assert relative_error(ours, exact) <= limit, name


@pytest.mark.parametrize("op", LOSSES)
def test_losses_and_their_weights_are_summed_in_float64(op, isa):
    # Equal rows, a power of two of them: in float64 all sums are exact, in float32 they are not.
    N = 2**18
    many, one = (make_case(op, N=n, T=1, V=3, E=1, H=1).to(torch.float32) for n in (N, 1))
    for case in (many, one):
        for tensor in (*case.ids.values(), *case.parameters.values()):
            tensor.zero_()
    total, single = (case.run(functional, reduction="sum") for case in (many, one))
    assert total.item() == N * single.item()
    options = {} if op == "mlp_cross_entropy" else {"weight": torch.tensor([0.1, 0.3, 0.7])}
    mean, single = (case.run(functional, **options) for case in (many, one))
    assert mean.item() == single.item()
