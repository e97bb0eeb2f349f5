"""Architectures of the digits experiment: (n, 1, 8, 8) in [0, 1] -> (n, 10) logits.

Each public function returns a fresh, randomly initialised model; OWNER, ZOO and SUSPECTS name the roles.
"""

from __future__ import annotations

from torch import nn

from metav.experiments.scenarios.architectures.building_blocks import (
    Mixer,
    Residual,
    Tokens,
    fully_connected,
    normed_convolution,
)
from metav.models.architectures import Architecture

CLASSES = 10


def digits_cnn() -> nn.Module:
    """Build two convolutions of 16 and 32 channels with batch norm, one pooling, two linear layers: the owner's."""
    return _digits_cnn(16, 32)


def digits_wide_cnn() -> nn.Module:
    """Build the owner's shape at half as many channels again."""
    return _digits_cnn(24, 48)


def digits_residual() -> nn.Module:
    """Build one residual block with batch norm, pooled to 4x4."""
    return nn.Sequential(
        *normed_convolution(1, 16),
        nn.MaxPool2d(2),
        Residual(*normed_convolution(16, 16), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 16, CLASSES),
    )


def digits_depthwise() -> nn.Module:
    """Build depthwise-separable convolutions with batch norm (Howard et al., 2017)."""
    return nn.Sequential(
        *normed_convolution(1, 16),
        nn.MaxPool2d(2),
        *_separable(16, 32),
        *_separable(32, 32),
        nn.Flatten(),
        nn.Linear(32 * 16, CLASSES),
    )


def digits_mlp() -> nn.Module:
    """Build a fully connected network of 128 and 64 hidden units."""
    return nn.Sequential(nn.Flatten(), fully_connected((64, 128, 64, CLASSES), nn.ReLU))


def digits_smooth_cnn() -> nn.Module:
    """Build strided convolutions with GELU, no pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(20, 28, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(28 * 16, CLASSES),
    )


def digits_deep_cnn() -> nn.Module:
    """Build three convolutions with batch norm, averaged over 2x2 regions before the classifier."""
    return nn.Sequential(
        *normed_convolution(1, 16),
        nn.MaxPool2d(2),
        *normed_convolution(16, 24),
        *normed_convolution(24, 32),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4, CLASSES),
    )


def digits_mixer() -> nn.Module:
    """Build an MLP-Mixer on 16 patches of 2x2 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 2, stride=2),
        Tokens(),
        Mixer(16, 32, 64),
        nn.LayerNorm(32),
        nn.Flatten(),
        nn.Linear(16 * 32, CLASSES),
    )


def digits_tanh_mlp() -> nn.Module:
    """Build a fully connected network of three layers of 96 hidden units with tanh."""
    return nn.Sequential(nn.Flatten(), fully_connected((64, 96, 96, 96, CLASSES), nn.Tanh))


OWNER: Architecture = digits_cnn
ZOO: tuple[Architecture, ...] = (digits_wide_cnn, digits_residual, digits_depthwise, digits_mlp)
SUSPECTS: tuple[Architecture, ...] = (digits_smooth_cnn, digits_deep_cnn, digits_mixer, digits_tanh_mlp)


def _digits_cnn(first: int, second: int) -> nn.Module:
    return nn.Sequential(
        *normed_convolution(1, first),
        *normed_convolution(first, second),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * 16, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
    )


def _separable(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
