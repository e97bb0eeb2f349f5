"""Random, differentiable changes of the queries during optimisation, as a channel or a thief might make them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

NOISE_SHARE = 0.03
"""Standard deviation of the noise, as a share of the range."""


def transform_queries(queries: Tensor, lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
    """Return queries (n, *input shape) after one random transform, clamped to the bounds; differentiable.

    lower, upper: bounds of an input.

    Images (n, c, h, w) get noise, a change of contrast, a shift by up to one pixel, or a slight blur; other inputs get
    noise.
    """
    choices = [_noise, _contrast, _shift, _blur] if queries.dim() == 4 else [_noise]
    choice = int(torch.randint(len(choices), (1,), generator=generator))
    changed = choices[choice](queries, lower, upper, generator)
    return torch.minimum(torch.maximum(changed, lower), upper)


def _noise(queries: Tensor, lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(queries.shape, generator=generator)
    return queries + NOISE_SHARE * (upper - lower) * noise


def _contrast(queries: Tensor, lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
    factor = 0.9 + 0.2 * torch.rand(1, generator=generator)
    middle = (lower + upper) / 2
    return middle + factor * (queries - middle)


def _shift(queries: Tensor, lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
    down, right = (int(v) for v in torch.randint(-1, 2, (2,), generator=generator))
    padded = functional.pad(queries, (1, 1, 1, 1), mode="replicate")
    height, width = queries.shape[2:]
    return padded[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _blur(queries: Tensor, lower: Tensor, upper: Tensor, generator: torch.Generator) -> Tensor:
    share = 0.5 * torch.rand(1, generator=generator)
    smooth = functional.avg_pool2d(functional.pad(queries, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return (1 - share) * queries + share * smooth
