"""Other data of the same kind: what a thief or a competitor might hold, made from the owner's own examples."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from metav.models.stored_tensors import changed_columns, joined_rows, row_slices
from metav.support.randomness import derive_seed
from metav.tasks.base import Task

LEAST_SEVERITY = 0.3
"""How strongly data are changed at least, where 1 is the strongest change."""
LEAST_PART = 0.5
"""Share of the examples that is kept at least."""


def varied(task: Task, seed: int) -> Task:
    """Return a task on a random part (50-100 %) of the examples, changed as data of another source might differ.

    seed: decides which part, and how strongly it is changed.

    Images are turned, shifted, scaled (unless targets lie at their pixels), changed in contrast and made noisy; of
    other inputs single features come from other examples. A task of the user's own without `with_data` only loses
    examples.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "variation"))
    severity = LEAST_SEVERITY + (1.0 - LEAST_SEVERITY) * float(torch.rand((), generator=generator))
    fraction = LEAST_PART + (1.0 - LEAST_PART) * float(torch.rand((), generator=generator))
    part = task.bootstrap(derive_seed(seed, "part"), fraction)
    examples = part.examples
    if not part.takes_other_data or examples is None:
        return part
    is_image = examples.ndim == 4 and min(examples.shape[2:]) >= 4
    if not is_image:
        return part.with_data(_changed_features(examples, severity, generator), part.targets)
    change = _recoloured if part.is_aligned else _changed_images
    lowest, highest = examples.amin(), examples.amax()
    changed = (torch.minimum(torch.maximum(rows, lowest), highest) for rows in change(examples, severity, generator))
    return part.with_data(joined_rows(changed), part.targets)


def _changed_images(images: Tensor, severity: float, generator: torch.Generator) -> Iterator[Tensor]:
    """Return images (n, c, h, w) in parts.

    Each is under its own small affine map, all under one change of contrast, with noise.
    """
    count = len(images)
    angle = math.radians(12.0) * severity * _both_ways(count, generator)
    scale = 1.0 + 0.1 * severity * _both_ways(count, generator)
    shift = 0.1 * severity * _both_ways(2 * count, generator).reshape(count, 2, 1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(count, 2, 2)
    maps = torch.cat([scale[:, None, None] * turn, shift], dim=2)

    def moved(rows: slice) -> Tensor:
        part = images[rows]
        grid = functional.affine_grid(maps[rows], list(part.shape), align_corners=False)
        return functional.grid_sample(part, grid, padding_mode="border", align_corners=False)

    every = joined_rows(map(moved, _slices(images)))
    return _recoloured(every, severity, generator, spread=float(images.max() - images.min()))


def _recoloured(
    images: Tensor, severity: float, generator: torch.Generator, *, spread: float | None = None
) -> Iterator[Tensor]:
    """Yield images in parts, all under one change of contrast, with noise.

    spread: range of brightness; None for that of these images.
    """
    middle = images.mean()
    spread = float(images.max() - images.min()) if spread is None else spread
    contrast = 1.0 + 0.2 * severity * _both_ways(1, generator)
    for rows in _slices(images):
        part = images[rows]
        noise = 0.05 * severity * spread * torch.randn(part.shape, generator=generator)
        yield middle + contrast * (part - middle) + noise


def _changed_features(inputs: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Return inputs (n, ...) in which a share of 0.1 `severity` of the entries come from other examples."""
    flat, slices = inputs.flatten(1), _slices(inputs)
    order = joined_rows(torch.rand(flat[rows].shape, generator=generator) for rows in slices)
    shuffled = changed_columns(order, lambda columns, part: flat[:, columns].gather(0, part.argsort(dim=0)))

    def changed(rows: slice) -> Tensor:
        swapped = torch.rand(flat[rows].shape, generator=generator) < 0.1 * severity
        return torch.where(swapped, shuffled[rows], flat[rows])

    return joined_rows(map(changed, slices)).reshape(inputs.shape)


def _slices(inputs: Tensor) -> list[slice]:
    return row_slices(len(inputs), inputs[0].numel() * inputs.element_size())


def _both_ways(count: int, generator: torch.Generator) -> Tensor:
    return 2.0 * torch.rand(count, generator=generator) - 1.0
