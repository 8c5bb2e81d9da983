"""Checks that cost too much to be always on."""

import os

from pymlp._library import ops


def check_ids(enabled: bool = True) -> bool:
    """Check the ids of every call on CUDA devices, too, from now on, in the whole process.

    On the CPU they always are. On CUDA looking at them waits for the device, so they are not unless
    that is asked for, here or by ``PYMLP_CHECK_IDS=1`` in the environment: kernels never touch
    memory outside the tables, and the loss, or the row of the hidden layer, of an id out of range
    is nan. With the check the call raises the RuntimeError that it raises on the CPU, which names
    op, argument, id and place. It cannot be made while a CUDA graph is captured.

    Returns:
        What was set before.
    """
    before: bool = ops.check_ids(enabled)
    return before


def use_environment() -> None:
    """Follow ``PYMLP_CHECK_IDS``: on for 1, off for 0, nothing or unset.

    Raises:
        ImportError: another value; raised by ``import pymlp``.
    """
    value = os.environ.get("PYMLP_CHECK_IDS") or "0"
    if value not in ("0", "1"):
        raise ImportError(
            f"environment variable PYMLP_CHECK_IDS: must be 0 or 1, got {value!r}", name="pymlp"
        )
    check_ids(value == "1")
