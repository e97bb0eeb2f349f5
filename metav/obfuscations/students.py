"""Parts of the obfuscations that train on a model's answers or against it: thieves' inputs, students, attacks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.tasks import Generation, Task, log_probabilities
from metav.training import OnEpoch, Teacher, evaluating

COPIES = 3
"""Mixtures that a thief asks about, for each natural input he holds."""


def accepts(function: Callable[..., object], name: str) -> bool:
    """Return whether a function takes a keyword argument."""
    parameters = inspect.signature(function).parameters.values()
    return any(entry.name == name or entry.kind is inspect.Parameter.VAR_KEYWORD for entry in parameters)


def train_student(
    task: Task,
    student: nn.Module,
    teacher: Teacher,
    *,
    seed: int,
    truth: float = 0.0,
    epochs: float | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train a student on a teacher's outputs, mixed with the true targets where the task's `train` takes `truth`."""
    options: dict[str, object] = {} if on_epoch is None else {"on_epoch": on_epoch}
    if epochs is not None:
        options["epochs"] = epochs
    if truth > 0.0 and accepts(task.train, "truth"):
        options["truth"] = truth
    return task.train(student, seed=seed, teacher=teacher, **options)  # type: ignore[arg-type]


def perturbed(task: Task, strength: float, seed: int) -> Task:
    """Return the task on the inputs a thief could make of it; targets are placeholders, since he has no labels.

    A task of the user's own without `with_data` is returned as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(task, Generation):
        return task.with_latents(task.draw(round(4000 * (1.0 - 0.75 * strength)), generator))
    if not hasattr(task, "with_data"):
        return task
    given: Any = task
    inputs, targets = (values.repeat_interleave(COPIES, dim=0) for values in (given.examples, given.targets))
    others = inputs[torch.randperm(len(inputs), generator=generator)]
    broadcast = (-1, *[1] * (inputs.ndim - 1))
    weight = 0.5 * torch.rand(len(inputs), generator=generator).reshape(broadcast)
    noise = 0.05 * strength * torch.randn(inputs.shape, generator=generator) * (task.upper - task.lower)
    mixed = torch.minimum(torch.maximum((1.0 - weight) * inputs + weight * others + noise, task.lower), task.upper)
    return given.with_data(mixed, targets)  # type: ignore[no-any-return]


class AdversarialModel(nn.Module):
    """A model that, while it trains, sees half of each batch moved against its own answers.

    The direction is the sign of one gradient of the difference from the clean answers, from a random start within
    `radius` (of one input's shape): labels are not needed, so that any task's `train` can train it.
    """

    def __init__(self, inner: nn.Module, radius: Tensor, task: Task) -> None:
        super().__init__()
        self.inner = inner
        self._limits = (radius, task.lower, task.upper)
        self._classes = task.name == "classification"

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inner model's outputs, on half adversarial inputs in training mode."""
        if not self.training:
            return self.inner(inputs)  # type: ignore[no-any-return]
        half = len(inputs) // 2
        if half == 0:
            return self.inner(inputs)  # type: ignore[no-any-return]
        return self.inner(torch.cat([self.attacked(inputs[:half]), inputs[half:]]))  # type: ignore[no-any-return]

    def attacked(self, inputs: Tensor) -> Tensor:
        """Return inputs moved by up to the radius, within the bounds."""
        radius, lower, upper = (limit.to(inputs.device) for limit in self._limits)
        start = inputs + radius * (2.0 * torch.rand_like(inputs) - 1.0)
        with evaluating(self.inner), torch.enable_grad():
            moved = start.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self._difference(self.inner(moved), self.inner(inputs).detach()), moved)
        step = torch.clamp(start + 1.25 * radius * gradient.sign() - inputs, -radius, radius)
        return torch.minimum(torch.maximum(inputs + step, lower), upper).detach()

    def _difference(self, outputs: Tensor, clean: Tensor) -> Tensor:
        if self._classes:
            return functional.nll_loss(log_probabilities(outputs), clean.flatten(1).argmax(dim=1))
        return (outputs - clean).square().sum()
