"""Architectures of the fashion experiment: latent (n, 16) -> images (n, 1, 28, 28) in [0, 1].

Each public function returns a fresh, randomly initialised generator; OWNER, ZOO and SUSPECTS name the roles.
"""

from __future__ import annotations

from torch import nn

from metav.experiments.scenarios.architectures.building_blocks import fully_connected
from metav.models.architectures import Architecture

LATENT = 16
SIZE = 28


def fashion_dcgan() -> nn.Module:
    """Build a DCGAN generator (Radford et al., 2016) of base width 16 behind one hidden layer: the owner's."""
    return dcgan(16)


def fashion_narrow_dcgan() -> nn.Module:
    """Build a DCGAN generator of base width 10."""
    return dcgan(10)


def fashion_upsampler() -> nn.Module:
    """Build nearest-neighbour upsampling, each followed by a convolution."""
    return nn.Sequential(
        *_seed_maps(128, 16),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(16, 6, 3, padding=1),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(6, 1, 3, padding=1),
        nn.Sigmoid(),
    )


def fashion_mlp() -> nn.Module:
    """Build a fully connected decoder with 128 and 256 hidden units."""
    return nn.Sequential(fully_connected((LATENT, 128, 256, SIZE**2), nn.ReLU), *_as_image())


def fashion_leaky_dcgan() -> nn.Module:
    """Build transposed convolutions of width 12 with leaky ReLU and no batch norm."""
    return nn.Sequential(
        nn.Linear(LATENT, 96),
        nn.LeakyReLU(0.2),
        nn.Linear(96, 24 * 49),
        nn.LeakyReLU(0.2),
        nn.Unflatten(1, (24, 7, 7)),
        nn.ConvTranspose2d(24, 12, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(12, 1, 4, stride=2, padding=1),
        nn.Sigmoid(),
    )


def fashion_pixel_shuffle() -> nn.Module:
    """Build convolutions that fold channels into pixels (Shi et al., 2016)."""
    return nn.Sequential(
        *_seed_maps(112, 16),
        nn.Conv2d(16, 48, 3, padding=1),
        nn.PixelShuffle(2),
        nn.ReLU(),
        nn.Conv2d(12, 4, 3, padding=1),
        nn.PixelShuffle(2),
        nn.Sigmoid(),
    )


def fashion_gelu_mlp() -> nn.Module:
    """Build a fully connected decoder with two layers of 192 units and GELU."""
    return nn.Sequential(fully_connected((LATENT, 192, 192, SIZE**2), nn.GELU), *_as_image())


def dcgan(width: int) -> nn.Module:
    """Build a DCGAN generator of any base width behind one hidden layer; latent (n, 16) -> (n, 1, 28, 28)."""
    return nn.Sequential(
        nn.Linear(LATENT, 128),
        nn.ReLU(),
        nn.Linear(128, 2 * width * 49, bias=False),
        nn.Unflatten(1, (2 * width, 7, 7)),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
        nn.Sigmoid(),
    )


OWNER: Architecture = fashion_dcgan
ZOO: tuple[Architecture, ...] = (fashion_narrow_dcgan, fashion_upsampler, fashion_mlp)
SUSPECTS: tuple[Architecture, ...] = (fashion_leaky_dcgan, fashion_pixel_shuffle, fashion_gelu_mlp)


def _seed_maps(hidden: int, channels: int) -> tuple[nn.Module, ...]:
    layers = fully_connected((LATENT, hidden, channels * 49), nn.ReLU)
    return *layers, nn.ReLU(), nn.Unflatten(1, (channels, 7, 7))


def _as_image() -> tuple[nn.Module, ...]:
    return nn.Sigmoid(), nn.Unflatten(1, (1, SIZE, SIZE))
