"""A wrapper that trains a model on adversarial examples."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.models.running import differentiable, evaluating
from metav.models.staging import on_device
from metav.tasks.base import Task
from metav.tasks.classification import log_probabilities


class AdversarialModel(nn.Module):
    """A model half of whose batch, while it trains, is replaced by adversarial examples.

    Each such input is moved by one signed gradient step, from a random start, so that the output differs more from the
    output to the unchanged input. Labels are not needed, so that any task's `train` can train it.

    inner: the model.
    radius: largest change of each feature, of one input's shape.
    task: gives the bounds, and whether outputs are a classifier's.
    """

    def __init__(self, inner: nn.Module, radius: Tensor, task: Task) -> None:
        super().__init__()
        self.inner = inner
        self._limits = (radius, task.lower, task.upper)
        self._classes = task.kind.answers_classes

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inner model's outputs; in training mode for a batch whose first half is adversarial."""
        if not self.training:
            return self.inner(inputs)  # type: ignore[no-any-return]
        half = len(inputs) // 2
        if half == 0:
            return self.inner(inputs)  # type: ignore[no-any-return]
        return self.inner(torch.cat([self.attacked(inputs[:half]), inputs[half:]]))  # type: ignore[no-any-return]

    def attacked(self, inputs: Tensor) -> Tensor:
        """Return adversarial examples: inputs (n, ...) moved by up to the radius, within the bounds."""
        radius, lower, upper = (on_device(limit, inputs.device) for limit in self._limits)
        start = inputs + radius * (2.0 * torch.rand_like(inputs) - 1.0)
        with evaluating(self.inner), torch.enable_grad(), differentiable(self.inner):
            moved = start.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self._difference(self.inner(moved), self.inner(inputs).detach()), moved)
        step = torch.clamp(start + 1.25 * radius * gradient.sign() - inputs, -radius, radius)
        return torch.minimum(torch.maximum(inputs + step, lower), upper).detach()

    def _difference(self, outputs: Tensor, clean: Tensor) -> Tensor:
        if self._classes:
            return functional.nll_loss(log_probabilities(outputs), clean.flatten(1).argmax(dim=1))
        return (outputs - clean).square().sum()
