"""Checks of single arguments: numbers of Python or numpy in, Python's own numbers out.

Errors read ``"OWNER: NAME must be ..., got VALUE"``; the owner is a function or a class.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

# Beyond any machine's memory and time; torch's own numbers end at 2**63 and at 3.4e38.
MOST_COUNT = 2**48
MOST_RATE = 1e38


def to_int(owner: str, name: str, value: Any, least: int, most: int = MOST_COUNT) -> int:
    """The whole number ``value``, of any type that is one, from ``least`` to ``most``.

    Raises:
        TypeError: it is a bool or no whole number.
        ValueError: it is out of the range.
    """
    try:
        if _is_bool(value):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{owner}: {name} must be an int, got {_told(value)}") from None
    if number < least:
        raise ValueError(f"{owner}: {name} must be at least {least}, got {number}")
    if number > most:
        raise ValueError(f"{owner}: {name} must be at most {most}, got {number}")
    return number


def to_float(
    owner: str,
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> float:
    """The finite number ``value``, of any real type, within the bounds.

    Raises:
        TypeError: it is a bool or no real number.
        ValueError: it is out of the bounds, infinite or nan.
    """
    if _is_bool(value) or not isinstance(value, Real):
        raise TypeError(f"{owner}: {name} must be a number, got {_told(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and above < number < below and least <= number <= most):
        bounds = [("above", above), ("at least", least), ("below", below), ("at most", most)]
        wanted = ["finite", *(f"{word} {x:g}" for word, x in bounds if math.isfinite(x))]
        raise ValueError(f"{owner}: {name} must be {' and '.join(wanted)}, got {number:g}")
    return number


def to_bool(owner: str, name: str, value: Any) -> bool:
    """True or False, of Python or numpy.

    Raises:
        TypeError: it is neither.
    """
    if not _is_bool(value):
        raise TypeError(f"{owner}: {name} must be True or False, got {_told(value)}")
    return bool(value)


def to_choice(owner: str, name: str, value: Any, known: Sequence[str]) -> str:
    """The one of ``known`` that ``value`` is.

    Raises:
        ValueError: it is none of them.
    """
    if not isinstance(value, str) or value not in known:
        listed = ", ".join(map(repr, known))
        raise ValueError(f"{owner}: {name} must be one of {listed}, got {_told(value)}")
    return str(value)


def _is_bool(value: Any) -> bool:
    """Whether it is a truth value, also one of numpy or torch."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def _told(value: Any) -> str:
    """The value in a message, on one line and of bounded length."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
