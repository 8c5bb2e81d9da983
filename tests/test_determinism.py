"""The same inputs give the same bits, run after run and with any number of threads."""

import pytest
import torch
from ops_testing import OPS, assert_same, make_case, results

from pymlp import functional

pytestmark = pytest.mark.usefixtures("device")

# Too small to be cut into tasks, cut unevenly, and large enough for every phase to be cut.
SIZES = [
    {"N": 3},
    {"N": 333, "V": 27, "E": 10, "H": 200},
    {"N": 1501, "V": 101, "E": 7, "H": 53},
    {"N": 5000, "V": 27, "E": 10, "H": 200},
]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_bits_with_any_number_of_threads(isa, set_num_threads, op, dtype):
    for sizes in SIZES:
        case = make_case(op, **sizes).to(dtype)
        set_num_threads(1)
        expected = results(functional, case)
        assert_same(results(functional, case), expected)
        for threads in (2, 3):
            set_num_threads(threads)
            assert_same(results(functional, case), expected)


@pytest.mark.parametrize("op", OPS)
def test_same_bits_when_deterministic_algorithms_are_asked_for(op):
    case = make_case(op, N=500).to(torch.float32)
    expected = results(functional, case)
    torch.use_deterministic_algorithms(True)
    try:
        assert_same(results(functional, case), expected)
    finally:
        torch.use_deterministic_algorithms(False)
