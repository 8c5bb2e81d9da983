"""Fixtures that every test may ask for."""

import _thread
import os
import signal

import pytest
import torch
from ops_testing import GPU, LANES, WHERE

from pymlp import _engine, debug, device_engine, functional
from pymlp import isa as instruction_sets

# Without it torch's matrix products refuse to run under use_deterministic_algorithms.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(scope="module", params=["cpu", pytest.param(GPU, marks=pytest.mark.gpu, id="gpu")])
def device(request):
    """Runs the test on the CPU and once more on the GPU; tensors are made there by default."""
    with torch.device(request.param):
        yield request.param


@pytest.fixture
def where(monkeypatch):
    """The device whose engine is the device's; on the CPU, its own engine steps back."""
    monkeypatch.setattr(device_engine, "DEVICES", (WHERE,))
    return WHERE


@pytest.fixture(params=["kernel", "graph"])
def way(request, monkeypatch, where):
    """Both ways of that engine, whatever the sizes."""
    if request.param == "graph":
        monkeypatch.setattr(device_engine, "_way", lambda *_: (False, "as a graph"))
    return request.param


@pytest.fixture
def check_ids():
    """Ids are checked on every device."""
    before = debug.check_ids()
    yield
    debug.check_ids(before)


def pytest_collection_modifyitems(config, items):
    """Nothing runs on a GPU that is not there, or once for every instruction set of the CPU."""
    others = instruction_sets.available()[1:]
    unwanted = {item for item in items if _parameter(item, "device") is GPU is None}
    unwanted |= {
        item
        for item in items
        if item.get_closest_marker("gpu") and _parameter(item, "isa") in others
    }
    items[:] = [item for item in items if item not in unwanted]


def _parameter(item, name):
    return item.callspec.params.get(name, "") if hasattr(item, "callspec") else ""


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
