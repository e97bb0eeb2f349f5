"""Arrays as tasks need them: checked hard, copied to float32, split into a training and a validation part."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metav.errors import InputError
from metav.models.stored_tensors import (
    StoredTensor,
    as_stored,
    exceeds_memory,
    joined_rows,
    row_parts,
    row_slices,
)
from metav.support.randomness import derive_seed
from metav.support.stored_arrays import PART_BYTES


def as_float_tensor(name: str, values: Any, *, minimum_dimensions: int = 1) -> Tensor:
    """Return a float32 CPU copy of a NumPy array or tensor of numbers, shape (n, ...); above the limit in a file.

    name: of the argument, for the message.
    minimum_dimensions: least number of axes.

    Raises InputError for another dtype, too few dimensions, no rows, NaN or infinite values.
    """
    tensor = as_plain_array(name, values)
    if tensor.is_complex():
        raise InputError(f"{name} must be real numbers, got {tensor.dtype}; convert them to float32 first")
    if tensor.ndim < minimum_dimensions:
        raise InputError(
            f"{name} must have at least {minimum_dimensions} dimensions (examples first), got shape "
            f"{tuple(tensor.shape)}; add an axis for the examples or the features"
        )
    if tensor.numel() == 0:
        raise InputError(f"{name} is empty, shape {tuple(tensor.shape)}; pass at least two examples")
    tensor = _as_float32(tensor)
    broken = sum(int((~torch.isfinite(part)).sum()) for part in row_parts(tensor))
    if broken:
        raise InputError(
            f"{name} must be finite, got {broken} NaN or infinite values of {tensor.numel()}; "
            "drop or fill these examples first"
        )
    return tensor


def _as_float32(tensor: Tensor) -> Tensor:
    if not exceeds_memory(tensor.shape):
        return tensor.detach().to(device="cpu", dtype=torch.float32, copy=True).contiguous()
    if isinstance(tensor, StoredTensor) and tensor.dtype == torch.float32:
        return tensor
    slices = row_slices(len(tensor), 4 * math.prod(tensor.shape[1:]))
    return joined_rows(tensor[part].detach().to(device="cpu", dtype=torch.float32) for part in slices)


def check_same_length(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    """Raise InputError unless both have the same number of examples, at least two."""
    if len(first) != len(second):
        raise InputError(
            f"{first_name} and {second_name} must have the same length, got {len(first)} and {len(second)}; "
            "pass one target for each example"
        )
    if len(first) < 2:
        raise InputError(f"{first_name} must hold at least two examples, got {len(first)}")


def bounds_of(name: str, data: Tensor, bounds: tuple[Any, Any] | None) -> tuple[Tensor, Tensor]:
    """Return (lower, upper), each of one example's shape: the range of the data, or `bounds` after a check.

    name: of the data, for the message.
    data: (n, ...).

    Raises InputError where data lie outside the bounds given.
    """
    if bounds is None:
        return data.amin(dim=0), data.amax(dim=0)
    lower, upper = checked_bounds(bounds, tuple(data.shape[1:]))
    slack = 1e-5 * (upper - lower).abs().max()
    below = max(float((lower - part).max()) for part in row_parts(data))
    above = max(float((part - upper).max()) for part in row_parts(data))
    if max(below, above) > slack:
        raise InputError(
            f"{name} must lie within bounds, got values from {data.min():g} to {data.max():g} for bounds from "
            f"{lower.min():g} to {upper.max():g}; give the bounds in the units of {name}"
        )
    return lower, upper


def checked_bounds(bounds: tuple[Any, Any], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return `bounds` = (lower, upper), numbers or arrays, as two float32 tensors of `shape`.

    Raises InputError for another form or shape, or where lower exceeds upper.
    """
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise InputError(f"bounds must be a pair (lower, upper), got {type(bounds).__name__}")
    sides = []
    for name, side in zip(("lower", "upper"), bounds, strict=True):
        tensor = as_float_tensor(f"bounds ({name})", side, minimum_dimensions=0)
        try:
            sides.append(tensor.expand(shape).clone())
        except RuntimeError:
            raise InputError(
                f"bounds ({name}) must be a number or have the shape {shape} of one input, got {tuple(tensor.shape)}"
            ) from None
    if bool((sides[0] > sides[1]).any()):
        raise InputError("bounds must have lower <= upper for every feature; swap them where they are reversed")
    return sides[0], sides[1]


def checked_levels(levels: int | None) -> int | None:
    """Return the number of values that a feature may take (256 for 8 bits), None for continuous features.

    Raises InputError for anything but None or a whole number from 2.
    """
    if levels is not None and (isinstance(levels, bool) or int(levels) != levels or levels < 2):
        raise InputError(f"levels must be None or a whole number from 2, got {levels!r}; use 256 for 8-bit images")
    return None if levels is None else int(levels)


def split_indices(count: int, fraction: float | None, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return sorted indices of the (training, validation) parts; the same for the same arguments.

    count: number of examples.
    fraction: of the examples that go to validation, in [0, 0.9]; None stands for 0.2, 0 leaves all for training.
    labels: (count,), to split class by class.

    Raises InputError for a fraction outside [0, 0.9].
    """
    fraction = 0.2 if fraction is None else float(fraction)
    if not 0.0 <= fraction <= 0.9:
        raise InputError(f"validation must be a fraction from 0 to 0.9 or None (0.2), got {fraction}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed(0, "validation", count)))
    groups = [order] if labels is None else [order[labels[order] == label] for label in torch.unique(labels)]
    # A class with one example stays in training; 2 examples at least must be left to train on.
    held = torch.cat([group[: min(round(len(group) * fraction), len(group) - 1)] for group in groups])
    held = held[: max(count - 2, 0)]
    is_held = torch.zeros(count, dtype=torch.bool)
    is_held[held] = True
    indices = torch.arange(count)
    return indices[~is_held], indices[is_held]


def balanced_order(indices: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
    """Return `indices` shuffled; with `labels` (of these indices) the classes take turns."""
    order = torch.randperm(len(indices), generator=generator)
    if labels is None or len(indices) == 0:
        return indices[order]
    turn = torch.empty(len(indices), dtype=torch.int64)
    for label in torch.unique(labels):
        members = order[labels[order] == label]
        turn[members] = torch.arange(len(members))
    return indices[order[torch.argsort(turn[order], stable=True)]]


def as_plain_array(name: str, values: Any) -> Tensor:
    """Return an array, a table, nested lists or a list of tensors as one tensor, of its own dtype.

    name: of the argument, for the message.

    Raises InputError for what is no array of numbers, or holds masked or missing values.
    """
    if isinstance(values, Tensor):
        return values.to_dense() if values.layout is not torch.strided else values
    if isinstance(values, list | tuple) and values and all(isinstance(entry, Tensor) for entry in values):
        shapes = {tuple(entry.shape) for entry in values}
        if len(shapes) > 1:
            raise InputError(f"{name} hold tensors of different shapes, {_listed(shapes)}; bring them to one size")
        first = values[0]
        slices = row_slices(len(values), first.numel() * first.element_size())
        return joined_rows(torch.stack([entry.detach().cpu() for entry in values[part]]) for part in slices)
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(
            f"{name} is a masked array, {int(np.ma.getmaskarray(values).sum())} of {values.size} values masked; fill "
            "them with .filled(...), or drop these examples"
        )
    if hasattr(values, "toarray"):
        raise InputError(f"{name} is a sparse matrix; pass {name}.toarray()")
    try:
        array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    except ValueError as error:
        raise InputError(f"{name} is no rectangular array ({error}); bring all examples to one shape") from error
    if array.dtype.kind not in "buifc":
        raise InputError(
            f"{name} must be an array of numbers, got dtype {array.dtype}{_where(values)}; convert it to float32 first"
        )
    stored = as_stored(array)
    if stored is not None:
        return stored
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True))


def _listed(shapes: Iterable[tuple[int, ...]]) -> str:
    return " and ".join(map(str, sorted(shapes)[:3]))


def _where(values: Any) -> str:
    """Return which columns of a table hold no numbers, in words."""
    dtypes = getattr(values, "dtypes", None)
    if dtypes is None or not hasattr(dtypes, "items"):
        return ""
    columns = [str(column) for column, dtype in dtypes.items() if getattr(dtype, "kind", "O") not in "buifc"]
    return f" (columns {', '.join(columns[:5])})" if columns else " (missing values)"


def evenly(indices: Tensor, count: int) -> Tensor:
    """Return at most `count` of the indices (n,), spread evenly over them."""
    return indices[torch.linspace(0, len(indices) - 1, min(len(indices), count)).round().long()]


def median_of_rows(values: Tensor) -> Tensor:
    """Return the median (...) of each entry over the rows of values (n, ...)."""
    if not isinstance(values, StoredTensor):
        return values.median(dim=0).values
    columns = values.reshape(len(values), -1)
    each = max(1, PART_BYTES // (len(values) * values.element_size()))
    found = [part.contiguous().median(dim=0).values for part in torch.split(columns, each, dim=1)]
    return torch.cat(found).reshape(values.shape[1:])
