"""Other data of the same kind: what a thief or a competitor might hold, made from the owner's own examples."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

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
    change = _changed_features if not is_image else _recoloured if part.is_aligned else _changed_images
    changed = change(examples, severity, generator)
    lowest, highest = examples.amin(dim=0), examples.amax(dim=0)
    changed = torch.minimum(torch.maximum(changed, lowest.amin()), highest.amax()) if is_image else changed
    return part.with_data(changed, part.targets)


def _changed_images(images: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Return images (n, c, h, w), each under its own small affine map, all under one change of contrast, with noise."""
    count = len(images)
    angle = math.radians(12.0) * severity * _both_ways(count, generator)
    scale = 1.0 + 0.1 * severity * _both_ways(count, generator)
    shift = 0.1 * severity * _both_ways(2 * count, generator).reshape(count, 2, 1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(count, 2, 2)
    maps = torch.cat([scale[:, None, None] * turn, shift], dim=2)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return _recoloured(
        functional.grid_sample(images, grid, padding_mode="border", align_corners=False),
        severity,
        generator,
        spread=float(images.max() - images.min()),
    )


def _recoloured(images: Tensor, severity: float, generator: torch.Generator, *, spread: float | None = None) -> Tensor:
    """Return images under one change of contrast, with noise; spread: range of brightness, None for that of these."""
    middle = images.mean()
    spread = float(images.max() - images.min()) if spread is None else spread
    contrast = 1.0 + 0.2 * severity * _both_ways(1, generator)
    noise = 0.05 * severity * spread * torch.randn(images.shape, generator=generator)
    return middle + contrast * (images - middle) + noise


def _changed_features(inputs: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """Return inputs (n, ...) in which a share of 0.1 `severity` of the entries come from other examples."""
    flat = inputs.flatten(1)
    donors = torch.rand(flat.shape, generator=generator).argsort(dim=0)
    swapped = torch.rand(flat.shape, generator=generator) < 0.1 * severity
    return torch.where(swapped, flat.gather(0, donors), flat).reshape(inputs.shape)


def _both_ways(count: int, generator: torch.Generator) -> Tensor:
    return 2.0 * torch.rand(count, generator=generator) - 1.0
