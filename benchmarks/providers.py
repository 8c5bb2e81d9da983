"""The providers that are measured, and whether each can be measured here."""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec

from torch import nn

from . import device

# By the name on the command line, in the order of tables.
LABELS = {
    "eager": "PyTorch eager",
    "compile": "torch.compile",
    "reduce-overhead": "torch.compile, reduce-overhead",
    "captured": "PyTorch eager in a CUDA graph",
    "jax": "JAX",
    "chunked": "F.linear_cross_entropy, chunked",
    "batched": "PyTorch, all at once",
    "pymlp": "pymlp",
    "native-1": "pymlp native, 1 thread",
    "native": "pymlp native",
    "many": "pymlp train_many",
    "unnormalized": "pymlp, logits alone",
    "copy": "copy of the logits",
}


def _compile_missing() -> str | None:
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler) else f"needs a C++ compiler, {compiler!r} is not there"


def _gpu_missing() -> str | None:
    return None if device.is_gpu() else "records CUDA graphs, needs --device cuda"


def _one_thread_missing() -> str | None:
    return "a GPU's engine has no threads" if device.is_gpu() else None


def _jax_missing() -> str | None:
    if device.is_gpu():
        return "JAX is measured on the CPU only"
    return None if find_spec("jax") else "JAX is not installed (`pip install 'pymlp[bench]'`)"


def _chunked_missing() -> str | None:
    has = hasattr(nn, "LinearCrossEntropyOptions")
    return None if has else "this torch has no chunked F.linear_cross_entropy"


def _never() -> None:
    return None


_MISSING: dict[str, Callable[[], str | None]] = {
    "eager": _never,
    "compile": _compile_missing,
    "reduce-overhead": _gpu_missing,
    "captured": _gpu_missing,
    "jax": _jax_missing,
    "chunked": _chunked_missing,
    "batched": _never,
    "pymlp": _never,
    "native-1": _one_thread_missing,
    "native": _never,
    "many": _never,
    "unnormalized": _never,
    "copy": _never,
}
assert _MISSING.keys() == LABELS.keys()


def missing(provider: str) -> str | None:
    """Why a provider cannot be measured here, None where it can."""
    return _MISSING[provider]()
