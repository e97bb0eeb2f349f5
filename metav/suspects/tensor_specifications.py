"""What a model says of its inputs and outputs, and how queries and answers are brought into that shape. No PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError, SuspectError
from metav.support.arrays import FloatArray
from metav.support.text import harmless

Layout: TypeAlias = Literal["NCHW", "NHWC", "flat"]
"""How one query is sent: with its channels first, as it is; with its channels last; as one row of numbers."""

LAYOUTS = ("NCHW", "NHWC", "flat")
_LISTED = 20
"""Most names that a message lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpecification:
    """One input or output as the model declares it.

    name: as the model calls it; it comes from elsewhere and may hold anything.
    dtype: of NumPy; None where it is no plain tensor of numbers.
    shape: with None for sizes that are not fixed, the batch first; None where nothing is said.
    """

    name: str
    dtype: str | None
    shape: tuple[int | None, ...] | None

    @property
    def is_floating(self) -> bool:
        """Whether it holds real numbers."""
        return self.dtype is not None and self.dtype.startswith("float")

    @property
    def batch(self) -> int | None:
        """The number of queries that it is fixed to; None for any."""
        return self.shape[0] if self.shape else None

    def __str__(self) -> str:
        sizes = "?" if self.shape is None else ", ".join("n" if size is None else str(size) for size in self.shape)
        return f"{harmless(self.name, limit=80)} {self.dtype or 'of another type'} ({sizes})"


def checked_layout(layout: Any) -> Layout | None:
    """Return a layout; InputError on anything else."""
    if layout is None or layout in LAYOUTS:
        chosen: Layout | None = layout
        return chosen
    raise InputError(f'layout must be "NCHW", "NHWC", "flat" or None, got {layout!r}')


def chosen(specifications: Sequence[TensorSpecification], wanted: str | int | None, *, what: str) -> int:
    """Return the place of the input or output that is meant.

    wanted: its name or place; None takes the only one, or the only one of real numbers.
    what: "input" or "output", the option that chooses among several.

    Raises InputError where it is not there, or where there are several.
    """
    names = [entry.name for entry in specifications]
    if isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    if isinstance(wanted, str) and wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(names):
        return wanted
    listed = "; ".join(str(entry) for entry in specifications[:_LISTED]) or "none"
    if wanted is not None:
        raise InputError(f"the suspect has no {what} {harmless(repr(wanted), limit=80)}; it has {listed}")
    floating = [place for place, entry in enumerate(specifications) if entry.is_floating]
    for places in (range(len(names)), floating):
        if len(places) == 1:
            return places[0]
    raise InputError(f"the suspect has {len(names)} {what}s; choose one by its name with {what}=: {listed}")


def arranged(queries: FloatArray, shape: tuple[int | None, ...] | None, layout: Layout | None) -> FloatArray:
    """Return queries (n, ...) as a model takes them: as they are, with channels last, or flat.

    shape: of the model's input, the batch first; None where nothing is said.
    layout: "NCHW" leaves queries as they are, "NHWC" moves the channels of images to the end, "flat" makes one row of
        each; None goes by the shape.

    Raises SuspectError("failed") where no arrangement fits the shape.
    """
    own = queries.shape[1:]
    if layout == "NHWC" and len(own) != 3:
        raise InputError(f'layout="NHWC" is for images, the queries have shape (n, {_sizes(own)}); leave it out')
    orders: dict[str, Callable[[], FloatArray]] = {"NCHW": lambda: queries}
    if len(own) == 3:
        orders["NHWC"] = lambda: np.moveaxis(queries, 1, -1)
    orders["flat"] = lambda: queries.reshape(len(queries), -1)
    candidates = [orders[layout]] if layout else list(orders.values())
    for arrange in candidates:
        result = arrange()
        if shape is None or _fits(result.shape[1:], shape[1:]):
            return np.ascontiguousarray(result)
    declared = ", ".join("n" if size is None else str(size) for size in shape or ())
    raise SuspectError(
        "failed", f"the suspect takes inputs of shape ({declared}), the queries have (n, {_sizes(own)}): another task"
    )


def converted(array: NDArray[Any], dtype: str | None, *, name: str) -> NDArray[Any]:
    """Return an array in the type of an input.

    Whole-number types take whole numbers in their range only: which unit else was meant, nobody can tell.

    Raises SuspectError("failed") where it cannot be converted.
    """
    if dtype is None:
        raise SuspectError("failed", f"the input {harmless(name, limit=80)} takes no numbers that queries could be")
    kind = np.dtype(dtype)
    if kind.kind == "f" or array.dtype == kind:
        return array.astype(kind, copy=False)
    with np.errstate(invalid="ignore"):
        result = array.astype(kind)
    if not np.array_equal(result, array):
        raise SuspectError(
            "failed",
            f"the input {harmless(name, limit=80)} takes {dtype}, the queries are no such whole numbers; pass a "
            "callable that converts them as the model's own clients do",
        )
    return result


def constants_for(
    specifications: Sequence[TensorSpecification], place: int, constants: Mapping[str, Any]
) -> dict[str, NDArray[Any] | float]:
    """Return the fixed values of all inputs but the one that takes the queries.

    Raises InputError where one is missing, unknown or no number.
    """
    others = {entry.name: entry for number, entry in enumerate(specifications) if number != place}
    unknown, missing = sorted(set(constants) - set(others)), sorted(set(others) - set(constants))
    if unknown:
        listed = "; ".join(str(entry) for entry in others.values()) or "none"
        raise InputError(f"the suspect has no further input {harmless(unknown[0], limit=80)!r}; it has {listed}")
    if missing:
        listed = "; ".join(str(others[name]) for name in missing[:_LISTED])
        raise InputError(
            f"the suspect has further inputs, whose values are not given: {listed}; pass constants={{name: value}}"
        )
    return {name: _constant(others[name], value) for name, value in constants.items()}


def constant_for_batch(specification: TensorSpecification, value: NDArray[Any] | float, rows: int) -> NDArray[Any]:
    """Return the fixed value of an input in the shape that goes with a batch."""
    array = np.asarray(value, dtype=specification.dtype)
    if array.ndim or not specification.shape:
        return array
    return np.full([rows if size is None else size for size in specification.shape], array)


def in_fixed_batches(ask: Callable[[FloatArray], NDArray[Any]], queries: FloatArray, size: int | None) -> NDArray[Any]:
    """Return the answers to queries that are asked in batches of a fixed size.

    The last batch is filled up with copies of its last query, whose answers are left out.
    ask: returns the answers to a batch, one row for each query. size: None asks all at once.
    """
    if size is None:
        return ask(queries)
    answers = []
    for start in range(0, len(queries), size):
        part = queries[start : start + size]
        filling = np.repeat(part[-1:], size - len(part), axis=0)
        answers.append(ask(np.concatenate([part, filling]))[: len(part)])
    return np.concatenate(answers)


def _constant(specification: TensorSpecification, value: Any) -> NDArray[Any]:
    try:
        array = np.asarray(value, dtype=specification.dtype)
    except (TypeError, ValueError) as error:
        raise InputError(f"the constant for {specification} is no number or list of numbers: {error}") from error
    if specification.dtype is None or array.dtype.kind not in "fiub":
        raise InputError(f"the input {specification} takes no numbers; only numbers can be given as constants")
    return array


def _fits(sizes: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return len(sizes) == len(declared) and all(
        wanted is None or size == wanted for size, wanted in zip(sizes, declared, strict=True)
    )


def _sizes(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
