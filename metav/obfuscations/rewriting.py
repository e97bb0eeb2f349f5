"""Obfuscations that rewrite weights without training: pruning, rounding, noise."""

from __future__ import annotations

import torch
from torch import nn

from metav.errors import ObfuscationError
from metav.models.architectures import Architecture
from metav.obfuscations.layers import (
    HIDDEN_CHANNELS,
    channel_count,
    channel_norms,
    following_norms,
    hidden_layers,
    quantized,
    weight_parameters,
    zero_channels,
)
from metav.obfuscations.steps import begin, between, random_generator, smallest_weights
from metav.support.torch_state import in_standard_torch_state
from metav.tasks.base import Task


@in_standard_torch_state
def weight_prune(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Set the smallest weights of each layer to zero: a share of 0.6 `strength` of them.

    From layer to layer the seed varies this share by up to a tenth of it.
    """
    clone, generator = begin(model, strength), random_generator(seed, "weight_prune")
    for _, weight in weight_parameters(clone):
        weight.data[smallest_weights(weight, 0.6 * strength * between(0.9, 1.1, generator))] = 0.0
    return clone


@in_standard_torch_state
def filter_prune(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Set whole output channels (units) to zero: a share of 0.3 `strength` of each layer but the last.

    These are the smallest by L1 norm (Li et al. 2017). The scale and shift of a batch norm behind them become zero too.
    The seed multiplies each norm by a random factor of about 1 +- 0.1, so that the choice among channels of similar
    norms varies.

    Raises ObfuscationError for a model without a hidden layer.
    """
    clone, generator = begin(model, strength), random_generator(seed, "filter_prune")
    hidden = hidden_layers(clone, task)
    norms = following_norms(clone)
    if all(channel_count(layer) < 2 for layer in hidden):
        raise ObfuscationError(f"filter_prune needs {HIDDEN_CHANNELS}, and this model has none; use weight_prune")
    for layer in hidden:
        lengths = channel_norms(layer)
        lengths = lengths * (1.0 + 0.1 * torch.randn(len(lengths), generator=generator).to(lengths.device))
        if len(lengths) < 2:
            continue
        channels = lengths.argsort()[: max(1, int(0.3 * strength * len(lengths)))]
        zero_channels(layer, channels)
        norm = norms.get(id(layer))
        if norm is not None:
            for entry in norm.parameters(recurse=False):
                entry.data[channels] = 0.0
    return clone


@in_standard_torch_state
def quantize(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Round the weights of each output channel to a grid of 8 bits (strength near 0) down to 3 bits (strength 1).

    The seed makes the steps of the grids up to 2 % smaller.
    """
    clone, generator = begin(model, strength), random_generator(seed, "quantize")
    bits = round(8 - 5 * strength)
    for _, weight in weight_parameters(clone):
        weight.data = quantized(weight.data, bits, between(0.98, 1.0, generator))
    return clone


@in_standard_torch_state
def weight_noise(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Add Gaussian noise to the weights: its standard deviation is 0.3 `strength` of that of each layer's weights."""
    clone, generator = begin(model, strength), random_generator(seed, "weight_noise")
    for _, weight in weight_parameters(clone):
        noise = torch.randn(weight.shape, generator=generator).to(weight.device)
        weight.data += 0.3 * strength * float(weight.data.std()) * noise
    return clone
