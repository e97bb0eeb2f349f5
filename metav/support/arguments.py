"""Checks of arguments, each with the one message that says what was expected and what was given."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from metav.errors import InputError, MetavError

MOST_SEED = 2**64 - 1
MOST_QUERIES = 100_000
"""Largest number of queries: with more, neither the optimisation nor any suspect comes to an end."""


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


def seed_number(value: Any, name: str = "seed") -> int:
    """Return a seed as an int, where it is a whole number from 0 to MOST_SEED, which every generator can start from.

    name: of the argument, for the message.

    Raises InputError for any other value.
    """
    found = whole_number(name, value)
    if not 0 <= found <= MOST_SEED:
        raise InputError(f"{name} must be from 0 to {MOST_SEED}, got {found}")
    return found


def query_count(value: Any, name: str = "queries") -> int:
    """Return a number of queries as an int, where it is a whole number from 1 to MOST_QUERIES.

    name: of the argument, for the message.

    Raises InputError for any other value.
    """
    return count(name, value, most=MOST_QUERIES)


def count(name: str, value: Any, *, most: int, least: int = 1, remedy: str = "") -> int:
    """Return a number of things as an int, where it is a whole number from `least`, and no more than can be meant.

    name: of the argument, for the message.
    most: beyond which no computation ends.
    remedy: what to do, added at the end of the message.

    Raises InputError for any other value.
    """
    found = whole_number(name, value, least=least, remedy=remedy)
    if found > most:
        raise InputError(f"{name} must be at most {most}, got {found}")
    return found


def number(name: str, value: Any, *, least: float, most: float, open_below: bool = False) -> float:
    """Return a value as a float, where it is a number (no boolean) from `least` to `most`.

    name: of the argument, for the message.
    least, most: the range, both ends included.
    open_below: whether `least` itself is left out.

    Raises InputError for any other value, NaN included.
    """
    fits = isinstance(value, Real) and not isinstance(value, bool) and least <= float(value) <= most
    if not fits or (open_below and value == least):
        raise InputError(
            f"{name} must be a number {'above' if open_below else 'from'} {least:g} to {most:g}, got {value!r}"
        )
    return float(value)
