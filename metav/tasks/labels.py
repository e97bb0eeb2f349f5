"""Labels in all forms in which users have them: numbers, names, categories, one-hot rows, maps, tables of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metav.errors import InputError
from metav.models.stored_tensors import joined_rows, row_slices
from metav.tasks.arrays import as_plain_array

Names = tuple[str, ...]


def as_class_labels(name: str, values: Any, classes: int | Sequence[str] | None) -> tuple[Tensor, int, Names]:
    """Return labels as an int64 tensor (n,), the number of classes, and their names, empty where they are numbers.

    name: of the argument, for the message.
    values: numbers from 0 or truth values, (n,) or (n, 1); texts; a series of categories; one-hot rows (n, classes).
    classes: their number, or their names in the order of the model's outputs; None for one more than the largest label,
        the sorted texts, the categories in their order, or the columns.

    Raises InputError for labels of another form, out of range, or of fewer than two classes.
    """
    named = _named(classes)
    categories = getattr(getattr(values, "dtype", None), "categories", None)
    if categories is not None:
        return _categories(name, values, [str(entry) for entry in categories], named)
    texts = _texts(values)
    if texts is not None:
        return _from_texts(name, texts, named or tuple(sorted(set(texts.tolist()))))
    tensor = as_plain_array(name, values)
    if tensor.ndim == 2 and tensor.shape[1] > 1:
        tensor, found = _from_one_hot(name, tensor), int(tensor.shape[1])
        named = named or _columns(values)
        count: int | None = found if named or not isinstance(classes, int) else classes
    else:
        tensor = tensor[:, 0] if tensor.ndim == 2 else tensor
        count = _count(classes)
        if tensor.numel() and tensor.ndim != 1 and not tensor.is_floating_point() and not tensor.is_complex():
            raise InputError(f"{name} must have shape (n,), got {tuple(tensor.shape)}; pass one class per example")
    numbers, total = _checked_numbers(name, tensor, count)
    _check_names(name, named, total)
    return numbers, total, named


def as_multi_hot(name: str, values: Any, names: Sequence[str] | None) -> tuple[Tensor, Names]:
    """Return several labels per example as an int64 tensor (n, labels) of 0 and 1, and the labels' names.

    values: 0 and 1, or truth values, (n, labels).
    names: of the labels; None for those of a table's columns, empty where there are none.

    Raises InputError for another form, or fewer than two labels.
    """
    named = _named(names) or _columns(values)
    tensor = as_plain_array(name, values)
    if tensor.ndim != 2 or tensor.shape[1] < 2:
        raise InputError(
            f"{name} must have shape (n, labels) with at least 2 labels, got {tuple(tensor.shape)}; one label per "
            "example is for Classification"
        )
    if not bool(((tensor == 0) | (tensor == 1)).all()):
        raise InputError(
            f"{name} must hold 0 and 1 alone, one column per label; turn lists of labels into such columns"
        )
    _check_names(name, named, int(tensor.shape[1]))
    return tensor.detach().to(device="cpu", dtype=torch.int64, copy=True), named


def as_label_map(name: str, values: Any, classes: int | Sequence[str] | None) -> tuple[Tensor, int, Names]:
    """Return a class for each place as an int64 tensor (n, ...), the number of classes, and their names.

    values: whole numbers from 0, or truth values, (n, rows, columns), (n, 1, rows, columns) or (n, steps).
    classes: their number, or their names in order; None for one more than the largest label.

    Raises InputError for another form or labels out of range.
    """
    named = _named(classes)
    tensor = as_plain_array(name, values)
    if tensor.ndim < 2:
        raise InputError(
            f"{name} must have shape (n, rows, columns) or (n, steps), got {tuple(tensor.shape)}; one label per "
            "example is for Classification"
        )
    tensor = tensor[:, 0] if tensor.ndim > 3 and tensor.shape[1] == 1 else tensor
    numbers, total = _checked_numbers(name, tensor, _count(classes))
    _check_names(name, named, total)
    return numbers, total, named


def _checked_numbers(name: str, tensor: Tensor, classes: int | None) -> tuple[Tensor, int]:
    """Return class numbers (n, ...) as int64 and the number of classes, after a check."""
    if tensor.numel() == 0:
        raise InputError(f"{name} is empty; pass at least two examples")
    if tensor.is_floating_point() or tensor.is_complex():
        raise InputError(f"{name} must be integers, got {tensor.dtype}; convert class numbers with .astype('int64')")
    slices = row_slices(len(tensor), 8 * math.prod(tensor.shape[1:]))
    tensor = joined_rows(tensor[part].detach().to(device="cpu", dtype=torch.int64) for part in slices)
    found = int(tensor.max()) + 1
    classes = found if classes is None else int(classes)
    if int(tensor.min()) < 0 or found > classes:
        raise InputError(
            f"{name} must lie in 0..{classes - 1}, got {int(tensor.min())}..{found - 1}; "
            "renumber the classes from 0 or pass classes="
        )
    if classes < 2:
        raise InputError(f"{name} must name at least 2 classes, got {classes}; a single class cannot be told apart")
    return tensor, classes


def _from_one_hot(name: str, rows: Tensor) -> Tensor:
    known = bool(((rows == 0) | (rows == 1)).all())
    sums = rows.sum(dim=1)
    if known and bool((sums == 1).all()):
        return rows.to(torch.int64).argmax(dim=1)
    if known:
        raise InputError(
            f"{name} of shape {tuple(rows.shape)} hold several labels per example, or none; use "
            "metav.MultiLabelClassification for those, and one-hot rows here"
        )
    raise InputError(
        f"{name} of shape {tuple(rows.shape)} are neither class numbers (n,) nor one-hot rows; of soft labels take the "
        "best class with .argmax(1)"
    )


def _from_texts(name: str, texts: NDArray[Any], names: Names) -> tuple[Tensor, int, Names]:
    places = {entry: place for place, entry in enumerate(names)}
    unknown = next((entry for entry in texts.tolist() if entry not in places), None)
    if unknown is not None:
        raise InputError(
            f"{name} hold {unknown!r}, which is none of the classes {', '.join(names[:8])}; name all of them"
        )
    tensor, count = _checked_numbers(name, torch.tensor([places[entry] for entry in texts.tolist()]), len(names))
    _check_names(name, names, count)
    return tensor, count, names


def _categories(name: str, values: Any, categories: list[str], named: Names) -> tuple[Tensor, int, Names]:
    codes = np.asarray(values.cat.codes if hasattr(values, "cat") else values.codes)
    if (codes < 0).any():
        raise InputError(f"{name} hold {int((codes < 0).sum())} missing categories; drop or fill these examples first")
    return _from_texts(name, np.array(categories, dtype=object)[codes], named or tuple(categories))


def _texts(values: Any) -> NDArray[Any] | None:
    """Return labels that are texts as an array (n,), None for labels of another kind."""
    if isinstance(values, Tensor):
        return None
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    is_text = array.dtype.kind == "U" or (
        array.dtype.kind in "OT" and array.size > 0 and all(isinstance(entry, str) for entry in array.ravel())
    )
    return array.astype(object) if is_text and array.ndim == 1 else None


def _named(classes: int | Sequence[str] | None) -> Names:
    if classes is None or isinstance(classes, int | np.integer):
        return ()
    return tuple(str(entry) for entry in classes)


def _count(classes: int | Sequence[str] | None) -> int | None:
    if classes is None:
        return None
    return int(classes) if isinstance(classes, int | np.integer) else len(classes)


def _columns(values: Any) -> Names:
    """Return the names of a table's columns; empty where they are numbers, or there is no table."""
    columns = getattr(values, "columns", None)
    names = () if columns is None or callable(columns) else tuple(columns)
    return names if all(isinstance(entry, str) for entry in names) else ()


def _check_names(name: str, names: Names, count: int) -> None:
    if names and (len(names) != count or len(set(names)) != count):
        raise InputError(f"{name} have {count} classes, got {len(names)} names for them; name each once, in order")
