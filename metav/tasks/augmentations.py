"""Random changes of a training batch that a recipe may ask for: images are shifted, other inputs made noisy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from metav.models.staging import on_device
from metav.models.stored_tensors import selected_rows

NOISE = 0.1
"""Standard deviation of the noise, in units of each feature's own."""


def augmentation_for(examples: Tensor, *, is_aligned: bool = False) -> str:
    """Return the name of the augmentation that suits examples (n, ...): "shift" for images, else "noise".

    is_aligned: whether targets lie at places of the inputs, so that these cannot be moved.
    """
    return "shift" if examples.ndim == 4 and min(examples.shape[2:]) >= 4 and not is_aligned else "noise"


def augmentation_of(
    name: str | None, examples: Tensor, indices: Tensor, first: Callable[[Tensor], Tensor] | None
) -> Callable[[Tensor], Tensor] | None:
    """Return the change of a batch that is named, made after the change `first`; None where there is neither.

    name: "shift", "noise" or None.
    examples: (n, ...).
    indices: of those among them from which the size of the noise follows.

    All draws come from torch's global generator.
    """
    if name is None:
        return first
    scale = NOISE * selected_rows(examples, indices).std(dim=0) if name == "noise" else torch.zeros(())

    def change(batch: Tensor) -> Tensor:
        batch = batch if first is None else first(batch)
        return shifted(batch) if name == "shift" else batch + on_device(scale, batch.device) * torch.randn_like(batch)

    return change


def shifted(images: Tensor) -> Tensor:
    """Return images (n, c, h, w), each moved by up to a pixel in both directions; the border is repeated."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate").movedim(1, -1)
    rows, columns = (torch.randint(0, 3, (count, 1), device=images.device) for _ in range(2))
    rows = rows + torch.arange(height, device=images.device)
    columns = columns + torch.arange(width, device=images.device)
    chosen = padded[torch.arange(count, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return chosen.movedim(-1, 1)
