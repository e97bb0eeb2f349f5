"""Data sets and loaders as arrays: drawn once, into memory up to a limit, and into a file above it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from metav.errors import InputError
from metav.models.stored_tensors import RowCollector
from metav.support.model_answers import is_array
from metav.support.randomness import isolated_rng
from metav.support.stored_arrays import check_room, memory_limit

TARGETS_AT_ONCE = 256
"""Targets that are joined at once where they go to a file."""
INPUT_KEYS = ("inputs", "input", "x", "images", "image", "img", "pixel_values", "features", "inputs_embeds")
"""Names under which items that are mappings may hold their input."""
TARGET_KEYS = ("labels", "label", "targets", "target", "y", "masks", "mask")
"""Names under which items that are mappings may hold their target."""


def is_data_set(values: Any) -> bool:
    """Return whether data have to be drawn: a Dataset or DataLoader of PyTorch, or a data set of Hugging Face's."""
    return isinstance(values, Dataset | DataLoader) or (
        hasattr(values, "column_names") and hasattr(values, "__getitem__") and not is_array(values)
    )


def draw_data(name: str, source: Any) -> tuple[Any, Any]:
    """Return all inputs (n, ...) of a data set or loader, and all targets; None for targets where items have none.

    name: of the argument, for the message.
    source: items, or batches of a loader, are pairs (input, target), mappings with one of INPUT_KEYS and TARGET_KEYS,
        or inputs alone. What follows a pair's target is left out.

    Random transforms are drawn once, the same each time; the global random state and a loader's generator are
    untouched.

    Inputs, and targets, that take more than `memory_limit` as float32 come back as tensors that lie in a file.

    Raises InputError for a source that is empty, for which there is no room, or whose items differ in shape or kind.
    """
    batches, length = isinstance(source, DataLoader) and source.batch_sampler is not None, _length(source)
    inputs, targets = _Inputs(name, length), _Targets(name, batches)
    with _untouched(source):
        for item in _items(name, source):
            given, target = _parts_of(name, item)
            part = _as_part(name, given)
            inputs.append(part if batches else part[None])
            targets.append(target)
    return inputs.joined(), targets.joined()


class _Inputs:
    """Collects the inputs of a data set.

    length: number of parts to come; None where it is not known.
    """

    def __init__(self, name: str, length: int | None) -> None:
        self._name, self._length, self._size = name, length, 0
        self._rows = RowCollector(name)
        self._shape: torch.Size | None = None

    def append(self, part: Tensor) -> None:
        """Take inputs (n, ...)."""
        if self._shape is not None and part.shape[1:] != self._shape:
            raise InputError(
                f"{self._name} holds items of different shapes, {tuple(self._shape)} and {tuple(part.shape[1:])}; "
                "bring them to one size in the data set's transform"
            )
        is_first, self._shape = self._shape is None, part.shape[1:]
        self._size += 4 * part.numel()
        self._rows.append(part)
        expected = self._size * (self._length or 1) if is_first else self._size
        if expected > memory_limit():
            if is_first:
                check_room(self._name, expected)
            self._rows.spill()

    def joined(self) -> Tensor:
        """Return all inputs."""
        if self._shape is None:
            raise InputError(f"{self._name} is empty; pass a data set of at least two items")
        return self._rows.joined()


class _Targets:
    """Collects the targets of a data set: a list of them, and where they take more than `memory_limit`, a file."""

    def __init__(self, name: str, batches: bool) -> None:
        self._name, self._batches = name, batches
        self._waiting: list[Any] = []
        self._rows: RowCollector | None = None
        self._size = 0

    def append(self, target: Any) -> None:
        """Take the target of an item, or those of a batch; None for an item without."""
        self._waiting.append(target)
        self._size += int(getattr(target, "nbytes", 0))
        if self._size > memory_limit() or (self._rows is not None and len(self._waiting) >= TARGETS_AT_ONCE):
            self._spill()

    def joined(self) -> Any:
        """Return all targets; None where there are none."""
        if self._rows is None:
            if all(target is None for target in self._waiting):
                return None
            return _joined_targets(self._name, self._waiting, self._batches)
        self._spill()
        return self._rows.joined()

    def _spill(self) -> None:
        self._rows = RowCollector(f"the targets of {self._name}") if self._rows is None else self._rows
        for begin in range(0, len(self._waiting), TARGETS_AT_ONCE):
            part = self._waiting[begin : begin + TARGETS_AT_ONCE]
            self._rows.append(torch.as_tensor(_joined_targets(self._name, part, self._batches)))
            self._rows.spill()
        self._waiting, self._size = [], 0


def _items(name: str, source: Any) -> Iterator[Any]:
    try:
        length = _length(source)
        if isinstance(source, DataLoader) or length is None:
            yield from iter(source)
            return
        for index in range(length):
            yield source[index]
    except (TypeError, NotImplementedError) as error:
        raise InputError(
            f"{name} of class {type(source).__name__} cannot be read ({error}); pass a Dataset with items by number, "
            "a DataLoader, or arrays"
        ) from error


@contextmanager
def _untouched(source: Any) -> Iterator[None]:
    generators = [entry for entry in (getattr(source, "generator", None),) if isinstance(entry, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    try:
        with isolated_rng(0):
            yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _parts_of(name: str, item: Any) -> tuple[Any, Any]:
    """Return the input and the target of an item or batch; None for no target."""
    if isinstance(item, Mapping):
        keys = {str(key).lower(): key for key in item}
        found = [[keys[key] for key in wanted if key in keys] for wanted in (INPUT_KEYS, TARGET_KEYS)]
        if len(found[0]) != 1 or len(found[1]) > 1:
            raise InputError(
                f"the items of {name} hold {', '.join(map(str, item))}; expected one of {', '.join(INPUT_KEYS)} and "
                f"one of {', '.join(TARGET_KEYS)}: rename or remove the others"
            )
        return item[found[0][0]], item[found[1][0]] if found[1] else None
    if isinstance(item, tuple | list):
        if not item:
            raise InputError(f"{name} holds empty items; expected pairs (input, target)")
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _as_part(name: str, given: Any) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach().cpu()
    if not is_array(given) and not isinstance(given, int | float | list):
        raise InputError(
            f"the items of {name} hold a {type(given).__name__} as input, expected a tensor or an array; turn it into "
            "one in the data set's transform, in the layout that the model takes"
        )
    array = np.asarray(given)
    if array.dtype.kind not in "buif":
        raise InputError(f"the items of {name} hold an input of {array.dtype}, expected numbers; convert it to float32")
    return torch.from_numpy(np.array(array, copy=True))


def _length(source: Any) -> int | None:
    """Return how many items or batches there are; None where that is not known."""
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        return None


def _joined_targets(name: str, targets: list[Any], batches: bool) -> Any:
    if any(target is None for target in targets):
        raise InputError(f"{name} holds items with and without a target; give all of them one")
    if batches:
        parts: Iterable[Any] = (entry for batch in targets for entry in batch)
        targets = list(parts)
    if any(isinstance(target, Tensor) for target in targets):
        try:
            return torch.stack([torch.as_tensor(target).detach().cpu() for target in targets])
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{name} holds targets that do not fit each other ({error}); make them alike") from error
    try:
        return np.asarray(targets)
    except ValueError as error:
        raise InputError(f"{name} holds targets of different shapes ({error}); make them alike") from error
