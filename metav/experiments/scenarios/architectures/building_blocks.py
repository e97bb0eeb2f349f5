"""Layers and groups of layers that the architectures of several tasks share.

A class of modules states its `identity_name`, which stands for its code in cache keys and commitments: it keeps them
when it moves, and must take another name (such as "metav/Residual/2") when it computes something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from metav.models.architectures import Architecture


class Residual(nn.Module):
    """Adds to its input what a body makes of it: x + body(x), for any body that keeps the shape."""

    identity_name = "metav/Residual"

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the module's outputs."""
        result: Tensor = inputs + self.body(inputs)
        return result


class Mixer(nn.Module):
    """Mixes along the tokens, then along the channels of (n, tokens, channels) (Tolstikhin et al., 2021)."""

    identity_name = "metav/Mixer"

    def __init__(self, tokens: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.token_norm, self.channel_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.across_tokens = nn.Sequential(nn.Linear(tokens, hidden), nn.GELU(), nn.Linear(hidden, tokens))
        self.across_channels = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the module's outputs."""
        mixed = inputs + self.across_tokens(self.token_norm(inputs).transpose(1, 2)).transpose(1, 2)
        result: Tensor = mixed + self.across_channels(self.channel_norm(mixed))
        return result


class Tokens(nn.Module):
    """Turns maps (n, channels, height, width) into tokens (n, height * width, channels)."""

    identity_name = "metav/Tokens"

    def forward(self, maps: Tensor) -> Tensor:
        """Return the module's outputs."""
        return maps.flatten(2).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Scaled:
    """An architecture at one width: each call returns a fresh model."""

    make: Callable[[int], nn.Module]
    width: int

    def __call__(self) -> nn.Module:
        """Return a fresh model."""
        return self.make(self.width)


def at_width(makers: tuple[Callable[[int], nn.Module], ...], width: int) -> tuple[Architecture, ...]:
    """Return the architectures of a list, all at one width."""
    return tuple(Scaled(make, width) for make in makers)


def fully_connected(widths: tuple[int, ...], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Build linear layers of these widths (inputs first, outputs last), with an activation between any two."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def normed_convolution(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> tuple[nn.Module, ...]:
    """Build a convolution without bias that keeps the size at stride 1, a batch norm and a ReLU."""
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
