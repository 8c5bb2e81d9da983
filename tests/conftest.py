"""Fixtures that every test may ask for."""

import _thread
import signal

import pytest
import torch
from ops_testing import LANES

from pymlp import _engine, functional
from pymlp import isa as instruction_sets


@pytest.fixture(autouse=True)
def _fuse_small_inputs_too(monkeypatch):
    """Test the kernel at sizes, too, that `cross_entropy` would leave to PyTorch."""
    monkeypatch.setattr(functional, "_WORTH_FUSING", 0)


@pytest.fixture(params=instruction_sets.available())
def isa(request):
    """Runs the test once for each instruction set of this machine, and checks that it is in use."""
    before = instruction_sets.active()
    instruction_sets.use(request.param)
    assert instruction_sets.active() == request.param
    assert _engine.active_lanes() == LANES[request.param]
    yield request.param
    instruction_sets.use(before)


@pytest.fixture
def press_ctrl_c():
    """Interrupts the main thread as Ctrl-C does, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield _thread.interrupt_main
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def set_num_threads():
    """torch.set_num_threads, taken back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(set_num_threads):
    """For small operands: beside other processes, threads would wait longer than they work."""
    set_num_threads(1)
