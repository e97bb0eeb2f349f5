"""Architectures of the skin experiment: ResNet-18, and models of other families. (n, 3, 28, 28) -> (n, 7) logits.

All are scaled by one `width`, so that the same experiment runs in seconds or at full size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.experiments.scenarios.architectures.building_blocks import Mixer, Residual, Tokens, normed_convolution

CLASSES = 7
CHANNELS = 3


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut (He et al., 2016, figure 5 left)."""

    identity_name = "metav/BasicBlock"

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Return the module's outputs."""
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(maps)))))
        return functional.relu(inner + self.shortcut(maps))


class ResNet(nn.Module):
    """Residual network of basic blocks behind the ImageNet stem (7x7 of stride 2, pooling of stride 2).

    blocks: per stage, each with twice the channels and half the size of the one before. width: channels of the first.
    """

    identity_name = "metav/ResNet"

    def __init__(self, blocks: tuple[int, ...], width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        layers: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                layers.append(BasicBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the module's outputs."""
        maps = self.layers(self.pool(functional.relu(self.bn1(self.conv1(images)))))
        logits: Tensor = self.fc(maps.mean(dim=(2, 3)))
        return logits


class DenseLayer(nn.Module):
    """Appends `growth` new channels to the maps (Huang et al., 2017)."""

    identity_name = "metav/DenseLayer"

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the module's outputs."""
        return torch.cat([maps, self.conv(functional.relu(self.norm(maps)))], dim=1)


def skin_resnet18(width: int) -> nn.Module:
    """Build a ResNet-18 (He et al., 2016), 11.2 million parameters at width 64: the owner's."""
    return ResNet((2, 2, 2, 2), width, CLASSES)


def skin_resnet10(width: int) -> nn.Module:
    """Build the owner's shape with one block a stage."""
    return ResNet((1, 1, 1, 1), width, CLASSES)


def skin_plain_cnn(width: int) -> nn.Module:
    """Build five convolutions with batch norm and pooling, as VGG (Simonyan and Zisserman, 2015)."""
    return nn.Sequential(
        *normed_convolution(CHANNELS, width),
        nn.MaxPool2d(2),
        *normed_convolution(width, 2 * width),
        *normed_convolution(2 * width, 2 * width),
        nn.MaxPool2d(2),
        *normed_convolution(2 * width, 4 * width),
        *normed_convolution(4 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, CLASSES),
    )


def skin_mobile(width: int) -> nn.Module:
    """Build inverted residual blocks of depthwise convolutions (Sandler et al., 2018)."""
    return nn.Sequential(
        *normed_convolution(CHANNELS, width, stride=2),
        Residual(*_inverted(width, width, stride=1)),
        *_inverted(width, 2 * width, stride=2),
        Residual(*_inverted(2 * width, 2 * width, stride=1)),
        *normed_convolution(2 * width, 4 * width, size=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, CLASSES),
    )


def skin_mlp(width: int) -> nn.Module:
    """Build a fully connected network on the pixels averaged in pairs, two hidden layers with batch norm."""
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(CHANNELS * 14 * 14, 8 * width),
        nn.BatchNorm1d(8 * width),
        nn.ReLU(),
        nn.Linear(8 * width, 4 * width),
        nn.BatchNorm1d(4 * width),
        nn.ReLU(),
        nn.Linear(4 * width, CLASSES),
    )


def skin_mixer(width: int) -> nn.Module:
    """Build an MLP-Mixer on 49 patches of 4x4 pixels, two blocks (Tolstikhin et al., 2021)."""
    channels = 4 * width
    return nn.Sequential(
        nn.Conv2d(CHANNELS, channels, 4, stride=4),
        Tokens(),
        Mixer(49, channels, 2 * channels),
        Mixer(49, channels, 2 * channels),
        nn.LayerNorm(channels),
        nn.Flatten(),
        nn.Linear(49 * channels, CLASSES),
    )


def skin_dense(width: int) -> nn.Module:
    """Build two densely connected blocks of three layers, with a halving between them (Huang et al., 2017)."""
    start, growth = 2 * width, width
    return nn.Sequential(
        *normed_convolution(CHANNELS, start, stride=2),
        *(DenseLayer(start + number * growth, growth) for number in range(3)),
        *normed_convolution(start + 3 * growth, start, size=1),
        nn.AvgPool2d(2),
        *(DenseLayer(start + number * growth, growth) for number in range(3)),
        nn.BatchNorm2d(start + 3 * growth),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(start + 3 * growth, CLASSES),
    )


def skin_convnext(width: int) -> nn.Module:
    """Build patches, then depthwise 5x5 convolutions with layer norm and GELU (Liu et al., 2022)."""
    return nn.Sequential(
        nn.Conv2d(CHANNELS, 2 * width, 2, stride=2),
        Residual(*_convnext_body(2 * width)),
        nn.Conv2d(2 * width, 4 * width, 2, stride=2),
        Residual(*_convnext_body(4 * width)),
        Residual(*_convnext_body(4 * width)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(4 * width),
        nn.Linear(4 * width, CLASSES),
    )


def skin_smooth_cnn(width: int) -> nn.Module:
    """Build four strided convolutions with SiLU and group norm, no pooling."""
    layers: list[nn.Module] = []
    channels = CHANNELS
    for outputs in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(channels, outputs, 3, stride=2, padding=1), nn.GroupNorm(2, outputs), nn.SiLU()]
        channels = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels, CLASSES))


OWNER: Callable[[int], nn.Module] = skin_resnet18
ZOO: tuple[Callable[[int], nn.Module], ...] = (skin_resnet10, skin_plain_cnn, skin_mobile, skin_mlp)
SUSPECTS: tuple[Callable[[int], nn.Module], ...] = (skin_mixer, skin_dense, skin_convnext, skin_smooth_cnn)


def _inverted(inputs: int, outputs: int, *, stride: int) -> tuple[nn.Module, ...]:
    hidden = 3 * inputs
    return (
        *normed_convolution(inputs, hidden, size=1),
        nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )


def _convnext_body(channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels, channels, 5, padding=2, groups=channels),
        nn.GroupNorm(1, channels),
        nn.Conv2d(channels, 2 * channels, 1),
        nn.GELU(),
        nn.Conv2d(2 * channels, channels, 1),
    )
