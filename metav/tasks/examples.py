"""Examples and targets in all forms in which users have them: arrays, tables, data sets, images of bytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metav.errors import InputError
from metav.tasks.arrays import as_float_tensor, as_plain_array
from metav.tasks.drawn_data import draw_data, is_data_set

BYTE_LEVELS = 256


def labelled_examples(
    name: str, inputs: Any, target_name: str, targets: Any, bounds: Any, levels: int | None
) -> tuple[Tensor, Any, Any, int | None]:
    """Return inputs as float32 (n, ...), targets as they were given or drawn, bounds and levels.

    name, target_name: of the arguments, for messages.
    inputs: arrays, tables, or a Dataset or DataLoader, whose targets are taken where none are given.
    bounds, levels: as given; for images of bytes, (n, ...) of uint8 with two axes and more, None stands for 0 to 255 in
        whole numbers.

    Raises InputError for data that cannot be used, or without targets.
    """
    if is_data_set(inputs):
        inputs, drawn = draw_data(name, inputs)
        targets = drawn if targets is None else targets
    if is_data_set(targets):
        raise InputError(f"{target_name} must be an array; a data set with both goes into {name}, alone")
    if targets is None:
        raise InputError(
            f"{target_name} are missing; pass them after {name}, or a Dataset or DataLoader of pairs (input, target)"
        )
    examples, bounds, levels = plain_examples(name, inputs, bounds, levels)
    return examples, targets, bounds, levels


def plain_examples(
    name: str, inputs: Any, bounds: Any, levels: int | None, *, drawn_alone: bool = False
) -> tuple[Tensor, Any, int | None]:
    """Return inputs as float32 (n, ...), with bounds and levels, as `labelled_examples` does.

    drawn_alone: whether inputs may be a data set, whose targets are left out; bounds and levels then stay.
    """
    if drawn_alone and is_data_set(inputs):
        inputs, _ = draw_data(name, inputs)
    array = as_plain_array(name, inputs)
    examples = as_float_tensor(name, array, minimum_dimensions=2)
    if array.dtype == torch.uint8 and array.ndim > 2 and not drawn_alone:
        bounds = (0.0, 255.0) if bounds is None else bounds
        levels = BYTE_LEVELS if levels is None and tuple(map(float, _pair(bounds))) == (0.0, 255.0) else levels
    return examples, bounds, levels


def _pair(bounds: Any) -> tuple[Any, Any]:
    plain = isinstance(bounds, tuple | list) and len(bounds) == 2 and all(isinstance(b, int | float) for b in bounds)
    return (bounds[0], bounds[1]) if plain else (0.0, 0.0)
