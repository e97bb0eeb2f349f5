"""Inputs on the owner's decision boundary: where one classifier differs most from another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from metav.models.running import predict
from metav.support.randomness import derive_seed
from metav.tasks.base import Task

DRAWS = 6  # pairs drawn for each query that is wanted; among ten equal classes nine in ten differ in label
HALVINGS = 12  # leaves 1/4096 of the way between two inputs


def boundary_queries(owner: nn.Module, task: Task, count: int, *, seed: int) -> Tensor:
    """Up to `count` inputs, float32 (count, *input shape), where the owner's label changes between two natural inputs.

    Each lies on the line between two natural inputs to which the owner gives different labels, just behind the place
    where the first one's label ends, found by bisection. A model copied from the owner on natural inputs has learned
    where its classes meet; others put the border elsewhere (IPGuard, Cao et al., 2021, asks such inputs too). Fewer
    come back where the owner gives few different labels, none where it gives but one.
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
    """Points (n, ...) on the ways from `before` to `after`, just behind the place where `is_behind` becomes true.

    before, after: (n, ...), on one device. is_behind: from points (n, ...) to booleans (n,), true at `after`. By
    bisection, to 1/4096 of the way; on a way that crosses several times, one of them.
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
