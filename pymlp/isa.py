"""The CPU instruction set the kernels run with.

The fastest one that the machine supports is chosen when pymlp is imported. The environment
variable ``PYMLP_ISA`` forces another, for instance ``PYMLP_ISA=avx2``; so does :func:`use` at any
later time.
Results of different instruction sets may differ in the last bits.
"""

import os

from pymlp import _engine


def available() -> list[str]:
    """Names of the instruction sets this machine can run, fastest first.

    They are among ``"avx512"``, ``"avx2"``, ``"neon"`` and ``"baseline"`` (every processor).
    """
    return _engine.available_isas()


def active() -> str:
    """Name of the instruction set in use."""
    return _engine.active_isa()


def use(name: str) -> None:
    """Run the kernels with the named instruction set from now on, in the whole process.

    Raises:
        ValueError: if the name is unknown or this machine cannot run it.
    """
    if not _engine.force_isa(name):
        known = ", ".join(available())
        raise ValueError(
            f"pymlp: instruction set {name!r} cannot be used here; this machine has: {known}"
        )


def use_environment() -> None:
    """Follow ``PYMLP_ISA``, if it is set and not empty.

    Raises:
        ImportError: the name is unknown or this machine cannot run it; raised by ``import pymlp``.
    """
    name = os.environ.get("PYMLP_ISA")
    if name:
        try:
            use(name)
        except ValueError as error:
            # With a name, ``python -m pymlp`` ends with this message and no traceback.
            raise ImportError(f"environment variable PYMLP_ISA: {error}", name="pymlp") from None
