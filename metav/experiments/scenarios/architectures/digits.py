"""Architectures of the experiments: the owner's, those of its zoo, and those that only test suspects have.

Each public function returns a fresh, randomly initialised model; the lists at the end of each part name the roles.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from metav.models.architectures import Architecture

DIGIT_CLASSES = 10
WARFARIN_FEATURES = 24
FASHION_LATENT = 16
FASHION_SIZE = 28


class Residual(nn.Module):
    """x + body(x), for any body that keeps the shape."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = inputs + self.body(inputs)
        return result


class Mixer(nn.Module):
    """Mixes along the tokens, then along the channels of (n, tokens, channels) (Tolstikhin et al., 2021)."""

    def __init__(self, tokens: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.token_norm, self.channel_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.across_tokens = nn.Sequential(nn.Linear(tokens, hidden), nn.GELU(), nn.Linear(hidden, tokens))
        self.across_channels = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, inputs: Tensor) -> Tensor:
        mixed = inputs + self.across_tokens(self.token_norm(inputs).transpose(1, 2)).transpose(1, 2)
        result: Tensor = mixed + self.across_channels(self.channel_norm(mixed))
        return result


class Tokens(nn.Module):
    """Turns maps (n, channels, height, width) into tokens (n, height * width, channels)."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.flatten(2).transpose(1, 2)


# Digits: (n, 1, 8, 8) in [0, 1] -> (n, 10) logits.


def digits_cnn() -> nn.Module:
    """Two convolutions of 16 and 32 channels with batch norm, one pooling, two linear layers: the owner's."""
    return _digits_cnn(16, 32)


def digits_wide_cnn() -> nn.Module:
    """The owner's shape at half as many channels again."""
    return _digits_cnn(24, 48)


def digits_residual() -> nn.Module:
    """One residual block with batch norm, pooled to 4x4."""
    return nn.Sequential(
        *_normed_convolution(1, 16),
        nn.MaxPool2d(2),
        Residual(*_normed_convolution(16, 16), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 16, DIGIT_CLASSES),
    )


def digits_depthwise() -> nn.Module:
    """Depthwise-separable convolutions with batch norm (Howard et al., 2017)."""
    return nn.Sequential(
        *_normed_convolution(1, 16),
        nn.MaxPool2d(2),
        *_separable(16, 32),
        *_separable(32, 32),
        nn.Flatten(),
        nn.Linear(32 * 16, DIGIT_CLASSES),
    )


def digits_mlp() -> nn.Module:
    """Fully connected, 128 and 64 hidden units."""
    return nn.Sequential(nn.Flatten(), _mlp((64, 128, 64, DIGIT_CLASSES), nn.ReLU))


def digits_smooth_cnn() -> nn.Module:
    """Strided convolutions with GELU, no pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(20, 28, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(28 * 16, DIGIT_CLASSES),
    )


def digits_deep_cnn() -> nn.Module:
    """Three convolutions with batch norm, averaged over 2x2 regions before the classifier."""
    return nn.Sequential(
        *_normed_convolution(1, 16),
        nn.MaxPool2d(2),
        *_normed_convolution(16, 24),
        *_normed_convolution(24, 32),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4, DIGIT_CLASSES),
    )


def digits_mixer() -> nn.Module:
    """MLP-Mixer on 16 patches of 2x2 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 2, stride=2),
        Tokens(),
        Mixer(16, 32, 64),
        nn.LayerNorm(32),
        nn.Flatten(),
        nn.Linear(16 * 32, DIGIT_CLASSES),
    )


def digits_tanh_mlp() -> nn.Module:
    """Fully connected, three layers of 96 hidden units with tanh."""
    return nn.Sequential(nn.Flatten(), _mlp((64, 96, 96, 96, DIGIT_CLASSES), nn.Tanh))


DIGITS_OWNER: Architecture = digits_cnn
DIGITS_ZOO: tuple[Architecture, ...] = (digits_wide_cnn, digits_residual, digits_depthwise, digits_mlp)
DIGITS_SUSPECTS: tuple[Architecture, ...] = (digits_smooth_cnn, digits_deep_cnn, digits_mixer, digits_tanh_mlp)


# Warfarin: (n, 24) -> (n, 1), the standardised dose.


def warfarin_mlp() -> nn.Module:
    """Two layers of 64 units with ReLU: the owner's."""
    return _mlp((WARFARIN_FEATURES, 64, 64, 1), nn.ReLU)


def warfarin_wide_mlp() -> nn.Module:
    """Layers of 128 and 64 units with ReLU."""
    return _mlp((WARFARIN_FEATURES, 128, 64, 1), nn.ReLU)


def warfarin_deep_mlp() -> nn.Module:
    """Three layers of 32 units with ReLU."""
    return _mlp((WARFARIN_FEATURES, 32, 32, 32, 1), nn.ReLU)


def warfarin_tanh_mlp() -> nn.Module:
    """Two layers of 48 units with tanh."""
    return _mlp((WARFARIN_FEATURES, 48, 48, 1), nn.Tanh)


def warfarin_residual() -> nn.Module:
    """A residual block of 48 units between two linear layers."""
    return nn.Sequential(
        nn.Linear(WARFARIN_FEATURES, 48),
        Residual(nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 48)),
        nn.ReLU(),
        nn.Linear(48, 1),
    )


def warfarin_gelu_mlp() -> nn.Module:
    """Layers of 96 and 48 units with GELU."""
    return _mlp((WARFARIN_FEATURES, 96, 48, 1), nn.GELU)


def warfarin_normed_mlp() -> nn.Module:
    """Two layers of 56 units with batch norm and ReLU."""
    return nn.Sequential(
        nn.Linear(WARFARIN_FEATURES, 56),
        nn.BatchNorm1d(56),
        nn.ReLU(),
        nn.Linear(56, 56),
        nn.BatchNorm1d(56),
        nn.ReLU(),
        nn.Linear(56, 1),
    )


def warfarin_shallow_mlp() -> nn.Module:
    """One layer of 256 units with ReLU."""
    return _mlp((WARFARIN_FEATURES, 256, 1), nn.ReLU)


def warfarin_silu_mlp() -> nn.Module:
    """Four layers of 40 units with SiLU."""
    return _mlp((WARFARIN_FEATURES, 40, 40, 40, 40, 1), nn.SiLU)


WARFARIN_OWNER: Architecture = warfarin_mlp
WARFARIN_ZOO: tuple[Architecture, ...] = (warfarin_wide_mlp, warfarin_deep_mlp, warfarin_tanh_mlp, warfarin_residual)
WARFARIN_SUSPECTS: tuple[Architecture, ...] = (
    warfarin_gelu_mlp,
    warfarin_normed_mlp,
    warfarin_shallow_mlp,
    warfarin_silu_mlp,
)


# Fashion: latent (n, 16) -> images (n, 1, 28, 28) in [0, 1].


def fashion_dcgan() -> nn.Module:
    """DCGAN generator (Radford et al., 2016) of base width 16 behind one hidden layer: the owner's."""
    return dcgan(16)


def fashion_narrow_dcgan() -> nn.Module:
    """DCGAN generator of base width 10."""
    return dcgan(10)


def fashion_upsampler() -> nn.Module:
    """Nearest-neighbour upsampling, each followed by a convolution."""
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
    """Fully connected decoder with 128 and 256 hidden units."""
    return nn.Sequential(_mlp((FASHION_LATENT, 128, 256, FASHION_SIZE**2), nn.ReLU), *_as_image())


def fashion_leaky_dcgan() -> nn.Module:
    """Transposed convolutions of width 12 with leaky ReLU and no batch norm."""
    return nn.Sequential(
        nn.Linear(FASHION_LATENT, 96),
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
    """Convolutions that fold channels into pixels (Shi et al., 2016)."""
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
    """Fully connected decoder with two layers of 192 units and GELU."""
    return nn.Sequential(_mlp((FASHION_LATENT, 192, 192, FASHION_SIZE**2), nn.GELU), *_as_image())


FASHION_OWNER: Architecture = fashion_dcgan
FASHION_ZOO: tuple[Architecture, ...] = (fashion_narrow_dcgan, fashion_upsampler, fashion_mlp)
FASHION_SUSPECTS: tuple[Architecture, ...] = (fashion_leaky_dcgan, fashion_pixel_shuffle, fashion_gelu_mlp)


def _digits_cnn(first: int, second: int) -> nn.Module:
    return nn.Sequential(
        *_normed_convolution(1, first),
        *_normed_convolution(first, second),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * 16, 64),
        nn.ReLU(),
        nn.Linear(64, DIGIT_CLASSES),
    )


def _normed_convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def _separable(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def _mlp(widths: tuple[int, ...], activation: Callable[[], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def dcgan(width: int) -> nn.Module:
    """DCGAN generator of any base width behind one hidden layer; latent (n, 16) -> (n, 1, 28, 28)."""
    return nn.Sequential(
        nn.Linear(FASHION_LATENT, 128),
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


def _seed_maps(hidden: int, channels: int) -> tuple[nn.Module, ...]:
    layers = _mlp((FASHION_LATENT, hidden, channels * 49), nn.ReLU)
    return *layers, nn.ReLU(), nn.Unflatten(1, (channels, 7, 7))


def _as_image() -> tuple[nn.Module, ...]:
    return nn.Sigmoid(), nn.Unflatten(1, (1, FASHION_SIZE, FASHION_SIZE))
