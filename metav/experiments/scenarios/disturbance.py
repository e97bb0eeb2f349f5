"""Images as another source would give them: turned, shifted and noisy."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from metav.support.arrays import FloatArray
from metav.support.randomness import derive_seed


def disturbed(images: FloatArray, seed: int) -> FloatArray:
    """Return the images, each turned by up to 20 degrees, shifted by up to 7.5 % of its size and made noisy.

    images: (n, channels, height, width), float32 in [0, 1], as is the result.
    """
    count = len(images)
    generator = torch.Generator().manual_seed(derive_seed(seed, "disturbed"))
    angle = (2.0 * torch.rand(count, generator=generator) - 1.0) * math.radians(20.0)
    shift = (2.0 * torch.rand(count, 2, generator=generator) - 1.0) * 0.15
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(count, 2, 2)
    grid = functional.affine_grid(torch.cat([turn, shift[:, :, None]], dim=2), list(images.shape), align_corners=False)
    moved = functional.grid_sample(torch.from_numpy(images), grid, align_corners=False)
    noise = 0.08 * torch.randn(moved.shape, generator=generator)
    result: FloatArray = (moved + noise).clamp(0.0, 1.0).numpy()
    return result
