"""Suspects that are no model of the task at all: noise, untrained networks, constants. None may be accused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metav.models.architectures import Architecture, OwnerArchitecture, build
from metav.support.randomness import derive_seed
from metav.tasks.base import Task

NOISE_NEW, NOISE_FIXED, UNTRAINED, CONSTANT = "noise_new", "noise_fixed", "untrained", "constant"


def nonsense_suspects(
    owner: nn.Module, task: Task, architectures: Sequence[Architecture], *, count: int, seed: int
) -> list[tuple[Any, bool, str]]:
    """Return `count` suspects of each of the four kinds, as (suspect, False, kind); the same seed gives the same.

    owner: whose class one in so many untrained networks has.
    architectures: of the others.
    """
    outputs = _outputs(task)
    makers: list[Architecture] = [OwnerArchitecture(owner), *architectures]
    found: list[tuple[Any, bool, str]] = []
    for number in range(count):
        own = derive_seed(seed, "nonsense", number)
        found += [
            (Noise(task.kind.answers_classes, outputs, own, is_new=True), False, NOISE_NEW),
            (Noise(task.kind.answers_classes, outputs, own, is_new=False), False, NOISE_FIXED),
            (build(makers[number % len(makers)], own), False, UNTRAINED),
            (Constant(task.kind.answers_classes, outputs, number, own), False, CONSTANT),
        ]
    return found


class Noise:
    """Random answers: logits or numbers, new at each call, or probabilities that a query's place alone decides."""

    def __init__(self, classes: bool, outputs: int, seed: int, *, is_new: bool) -> None:
        self.classes, self.outputs, self.seed, self.is_new = classes, outputs, seed, is_new
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, queries: Tensor) -> Tensor:
        """Return the answers (n, outputs)."""
        generator = self.generator if self.is_new else torch.Generator().manual_seed(self.seed)
        answers = torch.randn(len(queries), self.outputs, generator=generator)
        return torch.softmax(2.0 * answers, dim=1) if self.classes and not self.is_new else answers


class Constant:
    """The same answer to every query, but for a billionth: one class nearly for sure, or one number."""

    def __init__(self, classes: bool, outputs: int, number: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(derive_seed(seed, "constant"))
        self.answer = torch.randn(outputs, generator=generator, dtype=torch.float64)
        if classes:
            self.answer = torch.full((outputs,), 2e-3 / outputs, dtype=torch.float64)
            self.answer[number % outputs] += 1.0 - 2e-3

    def __call__(self, queries: Tensor) -> Tensor:
        """Return the answers (n, outputs)."""
        place = torch.arange(len(queries), dtype=torch.float64)[:, None]
        return self.answer[None] + 1e-9 * place


def _outputs(task: Task) -> int:
    if task.outputs is None:
        raise ValueError(f"a {task.name} task that does not state its outputs has no nonsense")
    return int(task.outputs)
