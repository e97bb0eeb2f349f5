"""Checks of arguments, each with the one message that says what was expected and what was given."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from metav.errors import InputError, MetavError


def whole_number(
    name: str,
    value: Any,
    *,
    least: int | None = None,
    most: int | None = None,
    remedy: str = "",
    error: type[MetavError] = InputError,
) -> int:
    """Return a value as an int, where it is a whole number (no boolean) from `least` to `most`.

    name: of the argument, for the message.
    least, most: the range, both ends included; None for no limit.
    remedy: what to do, added at the end of the message.
    error: the class to raise.

    Raises `error` for any other value.
    """
    fits = isinstance(value, Integral) and not isinstance(value, bool)
    if fits and (least is None or value >= least) and (most is None or value <= most):
        return int(value)
    span = f" from {least}" if least is not None else ""
    span += f" to {most}" if most is not None else ""
    raise error(f"{name} must be a whole number{span}, got {value!r}{'; ' + remedy if remedy else ''}")


def share(name: str, value: Any) -> float:
    """Return a value as a float, where it is a number in [0, 1].

    name: of the argument, for the message.

    Raises InputError for any other value.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise InputError(f"{name} must lie in [0, 1], got {value!r}")
    return float(value)


def seconds(name: str, value: Any) -> float:
    """Return a value as a float, where it is a finite number of seconds above 0.

    name: of the argument, for the message.

    Raises InputError for any other value.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < float("inf"):
        raise InputError(f"{name} must be a number of seconds above 0, got {value!r}")
    return float(value)
