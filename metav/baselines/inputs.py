"""Inputs that several baselines send: adversarial examples and CutMix."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.errors import InputError
from metav.tasks.classification import log_probabilities

EPSILONS = (0.025, 0.05, 0.1, 0.2, 0.4)
"""Radii of attacks in units of a feature's range: colour images often change class at the first, digits at 0.2."""


def box_around(inputs: Tensor, lower: Tensor, upper: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the bounds (n, ...) of a change by at most `epsilon` of each feature's range, within the range."""
    reach = epsilon * (upper - lower)
    return torch.maximum(inputs - reach, lower), torch.minimum(inputs + reach, upper)


def clamp(inputs: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return inputs moved into their bounds."""
    return torch.minimum(torch.maximum(inputs, lower), upper)


def predicted(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the most likely class (n,) of each input."""
    with torch.no_grad():
        return log_probabilities(model(inputs)).argmax(dim=1)


def projected_gradient(
    model: nn.Module, inputs: Tensor, lower: Tensor, upper: Tensor, *, epsilon: float, steps: int
) -> Tensor:
    """Return adversarial examples (n, ...): inputs moved away from their predicted class within an l-infinity ball.

    epsilon: radius of the ball in units of each feature's range.
    steps: of the descent; each is 2.5 epsilon / steps long, as in the paper, so that the edge of the ball can be
        reached and followed. There is no random start.

    Source: Madry et al., ICLR 2018.
    """
    labels = predicted(model, inputs)
    low, high = box_around(inputs, lower, upper, epsilon)
    stride = 2.5 * epsilon / steps * (upper - lower)
    found = inputs.clone()
    for _ in range(steps):
        found.requires_grad_(True)
        # the sum keeps examples independent of each other
        loss = functional.nll_loss(log_probabilities(model(found)), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, found)
        found = clamp(found.detach() + stride * gradient.sign(), low, high)
    return found


def nearest_adversarial(
    model: nn.Module, inputs: Tensor, lower: Tensor, upper: Tensor, *, epsilons: Sequence[float], steps: int
) -> Tensor:
    """Return, for each input, `projected_gradient` within the first of some growing balls where its class changes.

    epsilons: radii of the balls, ascending, in units of each feature's range.
    steps: of the descent in each ball.

    Where the predicted class changes in none, the example of the last ball stays.
    """
    found = projected_gradient(model, inputs, lower, upper, epsilon=epsilons[0], steps=steps)
    for epsilon in epsilons[1:]:
        missing = predicted(model, found) == predicted(model, inputs)
        if not bool(missing.any()):
            break
        found[missing] = projected_gradient(model, inputs[missing], lower, upper, epsilon=epsilon, steps=steps)
    return found


def checked_epsilons(epsilons: Sequence[float], steps: int) -> tuple[float, ...]:
    """Return the radii of `nearest_adversarial` as a tuple.

    Raises InputError unless the radii are positive and grow, and `steps` is at least 1.
    """
    given = tuple(float(epsilon) for epsilon in epsilons)
    if not given or given[0] <= 0 or any(low >= high for low, high in pairwise(given)) or steps < 1:
        raise InputError(f"epsilons must be positive and grow, steps be at least 1, got {given} and {steps}")
    return given


def cutmix(inputs: Tensor, partners: Tensor, generator: torch.Generator) -> Tensor:
    """Return each input with a random box replaced by that of its partner.

    inputs, partners: (n, channels, height, width), where the box spans the channels; in arrays of another shape, a
        random run of the flattened features is replaced.

    Source: Yun et al., ICCV 2019, eq. 1-2 with Beta(1, 1).
    """
    mixed = inputs.clone()
    for row in range(len(inputs)):
        kept, down, right = (float(value) for value in torch.rand(3, generator=generator))
        if inputs.ndim == 4:
            rows = _span(inputs.shape[2], (1 - kept) ** 0.5, down)
            columns = _span(inputs.shape[3], (1 - kept) ** 0.5, right)
            mixed[row, :, rows, columns] = partners[row, :, rows, columns]
        else:
            part = _span(inputs[row].numel(), 1 - kept, down)
            mixed[row].view(-1)[part] = partners[row].reshape(-1)[part]
    return mixed


def _span(size: int, share: float, position: float) -> slice:
    """Return a run of about `share` of `size` places around a uniform center, cut off at the ends."""
    center, half = position * size, share * size / 2
    return slice(max(0, round(center - half)), min(size, round(center + half)))
