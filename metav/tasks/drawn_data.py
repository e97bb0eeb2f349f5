"""Data sets and loaders as arrays: drawn once into memory, up to a limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from metav.errors import InputError
from metav.support.model_answers import is_array
from metav.support.randomness import isolated_rng

MOST_BYTES = 2 * 2**30
"""Memory that the inputs of a data set may take, as float32."""
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

    Raises InputError for a source that is empty, too large for MOST_BYTES, or whose items differ in shape or kind.
    """
    batches, length = isinstance(source, DataLoader) and source.batch_sampler is not None, _length(source)
    inputs: list[Any] = []
    targets: list[Any] = []
    size = 0
    with _untouched(source):
        for item in _items(name, source):
            given, target = _parts_of(name, item)
            part = _as_part(name, given)
            if inputs and part.shape[batches:] != inputs[0].shape[batches:]:
                raise InputError(
                    f"{name} holds items of different shapes, {tuple(inputs[0].shape)} and {tuple(part.shape)}; bring "
                    "them to one size in the data set's transform"
                )
            size += 4 * part.numel()
            expected = size if batches or inputs or length is None else size * length
            _check_size(name, expected, part, batches=batches, length=length)
            inputs.append(part)
            targets.append(target)
    if not inputs:
        raise InputError(f"{name} is empty; pass a data set of at least two items")
    joined = torch.cat(inputs) if batches else torch.stack(inputs)
    if all(target is None for target in targets):
        return joined, None
    return joined, _joined_targets(name, targets, batches)


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


def _check_size(name: str, expected: int, part: Tensor, *, batches: bool, length: int | None) -> None:
    if expected <= MOST_BYTES:
        return
    each = 4 * part.numel() // (len(part) if batches and len(part) else 1)
    fitting = MOST_BYTES // max(each, 1)
    data = f"{name}.dataset" if batches else name
    count = "" if length is None or batches else f"{length} "
    raise InputError(
        f"{name} holds {count}inputs of {tuple(part.shape[batches:])}, more than the {MOST_BYTES / 2**30:g} GiB that "
        f"are drawn into memory (as float32, {fitting} of them fit); pass a part that stands for all of them, such as "
        f"torch.utils.data.Subset({data}, range({min(fitting, 10_000)}))"
    )


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
