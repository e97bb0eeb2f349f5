"""Inputs on the owner's decision boundary: where one classifier differs most from another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from metav.models.running import predict
from metav.support.randomness import derive_seed
from metav.tasks.base import Task

DRAWS = 6
"""Pairs of inputs drawn for each query that is wanted. Only pairs with two different labels serve: nine in ten of them
where there are ten classes of equal size."""
HALVINGS = 12
"""Steps of the bisection: the boundary is located to 1/4096 of the distance between two inputs."""


def boundary_queries(owner: nn.Module, task: Task, count: int, *, seed: int) -> Tensor:
    """Return up to `count` inputs, float32 (count, *input shape), on the owner's decision boundary.

    Each lies on the line between two natural inputs to which the owner gives different labels, just behind the point
    where the first one's label ends, found by bisection. A model copied from the owner on natural inputs has learned
    where its classes meet; other models put the boundary elsewhere. Fewer inputs come back where the owner gives few
    different labels, none where it gives only one.

    Source: such inputs are asked in IPGuard (Cao et al., 2021), too.
    """
    available = 2 * count if task.natural_count is None else task.natural_count
    natural: Tensor = task.natural_queries(min(available, 2 * count), seed=derive_seed(seed, "natural")).float()
    labels = _labels(owner, natural)
    generator = torch.Generator().manual_seed(derive_seed(seed, "pairs"))
    first, second = torch.randint(len(natural), (2, DRAWS * count), generator=generator)
    apart = (labels[first] != labels[second]).nonzero()[:count, 0]
    first, second = first[apart], second[apart]
    if not len(apart):
        return natural[:0]
    return crossings(natural[first], natural[second], lambda points: _labels(owner, points) != labels[first])


def crossings(before: Tensor, after: Tensor, is_behind: Callable[[Tensor], Tensor]) -> Tensor:
    """Return points (n, ...) on the lines from `before` to `after`, just behind where `is_behind` becomes true.

    before, after: (n, ...), on one device.
    is_behind: from points (n, ...) to booleans (n,), true at `after`.

    The points are found by bisection, to 1/4096 of the distance; on a line that crosses several times, it is one of the
    crossings.
    """
    way, shape = after - before, (-1, *[1] * (after.ndim - 1))
    low, high = torch.zeros(len(after), device=after.device), torch.ones(len(after), device=after.device)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        behind = is_behind(before + middle.reshape(shape) * way)
        low, high = torch.where(behind, low, middle), torch.where(behind, middle, high)
    return before + high.reshape(shape) * way


def _labels(owner: nn.Module, inputs: Tensor) -> Tensor:
    answers: Tensor = predict(owner, inputs)
    return answers.flatten(1).argmax(dim=1)
