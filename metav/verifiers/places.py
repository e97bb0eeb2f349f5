"""Answers that hold a class for each of several places: the labels of a multi-label task, the pixels of a segmentation.

A verifier reads few numbers per query, and an image has many pixels. So some places are chosen, once for a task, and of
a suspect's answer only these are read: as log-probabilities of the classes, place by place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError
from metav.support.arrays import FloatArray
from metav.verifiers.forms import Numbers

MOST_PLACES = 64
"""Places of an image that are read, at most: the centres of a grid of 8 x 8."""
MOST_IN_ALL = 2**31
"""Places of an answer, read or not."""
MOST_LABELS = 256
"""Labels that are read, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The places of an answer, and those that are read.

    classes: of each place, from 2.
    shape: of all places, such as (labels,) or (rows, columns).
    chosen: numbers of those that are read, in row-major order.

    Raises InputError for numbers that make no sense.
    """

    classes: int
    shape: tuple[int, ...]
    chosen: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.classes, *self.shape, *self.chosen)
        if not all(type(number) is int and number >= 0 for number in numbers) or self.classes < 2:
            raise InputError(f"places need 2 classes and whole numbers, got {self.classes}, {self.shape}")
        if self.count > MOST_IN_ALL:
            raise InputError(f"an answer may have {MOST_IN_ALL} places, got {self.count}")
        chosen = np.array(self.chosen, dtype=np.int64)
        if not chosen.size or int(chosen.max()) >= self.count or (np.diff(chosen) <= 0).any():
            raise InputError(f"the places that are read must be different ones of {self.count}, in order")

    @property
    def count(self) -> int:
        """Number of all places."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """Numbers that are read of one answer: the classes of the first chosen place, then of the next."""
        return len(self.chosen) * self.classes

    def rows(self, values: Numbers) -> Numbers:
        """Return read answers (..., n, outputs) place by place, (..., n * places, classes)."""
        return values.reshape(*values.shape[:-2], -1, self.classes)

    def joined(self, rows: Numbers) -> Numbers:
        """Return the inverse of `rows`."""
        return rows.reshape(*rows.shape[:-2], -1, self.outputs)

    def points(self, shape: Sequence[int]) -> tuple[NDArray[np.int64], FloatArray]:
        """Return where the chosen places lie in an answer of any resolution: numbers, weights, (corners, places) each.

        shape: of the places of that answer, with as many axes.

        Between the neighbours of a point the answer is interpolated linearly, as by
        `torch.nn.functional.interpolate(..., align_corners=False)`.
        """
        corners = [(np.zeros(len(self.chosen), np.int64), np.ones(len(self.chosen), np.float64))]
        wanted = np.unravel_index(np.array(self.chosen), self.shape)
        for own, size, place in zip(self.shape, shape, wanted, strict=True):
            position = np.clip((place + 0.5) * size / own - 0.5, 0.0, size - 1.0)
            low = np.floor(position).astype(np.int64)
            high, share = np.minimum(low + 1, size - 1), position - low
            corners = [
                (number * size + side, weight * part)
                for number, weight in corners
                for side, part in ((low, 1.0 - share), (high, share))
            ]
        kept = [(number, weight) for number, weight in corners if (weight > 0).any()]
        return np.stack([number for number, _ in kept]), np.stack([weight for _, weight in kept]).astype(np.float32)


def grid_places(classes: int, shape: Sequence[int], most: int = MOST_PLACES) -> Places:
    """Return places on an even grid; all of them where these are few enough.

    classes: of each place.
    shape: of all places.
    most: places that are read, at most.
    """
    sizes = tuple(int(size) for size in shape)
    each = list(sizes)
    while math.prod(each) > most:
        widest = max(range(len(each)), key=lambda axis: each[axis])
        each[widest] -= 1
    lines = [
        np.unique(((np.arange(count) + 0.5) * size / count).astype(np.int64))
        for count, size in zip(each, sizes, strict=True)
    ]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(sizes))
    chosen = np.sort(np.ravel_multi_index(tuple(grid.T), sizes))
    return Places(classes=classes, shape=sizes, chosen=tuple(int(number) for number in chosen))
