"""The layers of a model that carry weights: found, put in the order of use, pruned, rounded."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from metav.errors import ObfuscationError
from metav.models.running import device_of, evaluating
from metav.support.randomness import isolated_rng
from metav.tasks.base import Task


def weight_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the names and weight tensors of at least two dimensions (no biases, no normalisation), each once."""
    for name, parameter in model.named_parameters():
        # weight norm keeps a weight as magnitude times direction; here only the directions count as weights
        is_magnitude = name.endswith((".original0", "weight_g"))
        if parameter.ndim >= 2 and parameter.is_floating_point() and parameter.numel() > 1 and not is_magnitude:
            yield name, parameter


def weighted_layers(model: nn.Module, task: Task) -> list[nn.Module]:
    """Return the leaf modules with a weight of two dimensions and more, in the order of a forward pass.

    task: gives the inputs of that pass.

    Raises ObfuscationError for a model without any.
    """
    layers = [module for module in model.modules() if _is_weighted(module)]
    if not layers:
        raise ObfuscationError(
            f"the model of class {type(model).__qualname__} has no layer with a weight matrix; this obfuscation "
            "needs at least one"
        )
    called: list[nn.Module] = []
    handles = [layer.register_forward_hook(lambda module, *_: called.append(module)) for layer in layers]
    try:
        with isolated_rng(0), evaluating(model):
            model(task.natural_queries(2, seed=0).to(device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    # a layer called twice is placed where it is called last; those never called come first, as registered
    position = {id(module): index for index, module in enumerate(called)}
    return sorted(layers, key=lambda layer: position.get(id(layer), -1))


def is_transposed(layer: nn.Module) -> bool:
    """Return whether a layer's weight has its outputs on axis 1 (transposed convolutions)."""
    return bool(getattr(layer, "transposed", False))


def channel_norms(layer: nn.Module) -> Tensor:
    """Return the L1 norm of the weights of each output channel, (channels,)."""
    return _by_channel(layer).abs().sum(dim=1)


def zero_channels(layer: nn.Module, channels: Tensor) -> None:
    """Set weights and bias of the given output channels to zero, in place."""
    with torch.no_grad():
        weight = _stored_weight(layer)
        if is_transposed(layer):
            groups = int(getattr(layer, "groups", 1))
            size = weight.shape[1]
            for channel in channels.tolist():
                span = weight.shape[0] // groups
                group = channel // size
                weight[group * span : (group + 1) * span, channel % size] = 0.0
        else:
            weight[channels] = 0.0
        bias = getattr(layer, "bias", None)
        if isinstance(bias, Tensor):
            bias.data[channels] = 0.0


def following_norms(model: nn.Module) -> dict[int, nn.Module]:
    """Return, by the id of a layer, the normalisation layer registered right after it with its number of channels."""
    pairs: dict[int, nn.Module] = {}
    previous: nn.Module | None = None
    for module in model.modules():
        if _is_weighted(module):
            previous = module
        elif previous is not None and getattr(module, "running_mean", None) is not None:
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and len(weight) == len(channel_norms(previous)):
                pairs[id(previous)] = module
            previous = None
    return pairs


def quantized(weight: Tensor, bits: int, stretch: float = 1.0) -> Tensor:
    """Return a weight rounded to 2**bits - 1 symmetric levels per output channel (axis 0), same shape.

    stretch: factor on the distance between two levels.

    That distance is, for each channel, the one of ten candidates with the smallest squared error: with few bits it pays
        to clip the largest weights.
    """
    rows = weight.flatten(1)
    largest = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
    top = 2 ** (bits - 1) - 1
    best, smallest = rows, torch.full_like(largest, float("inf"))
    for share in torch.linspace(0.55, 1.0, 10).tolist():
        step = stretch * share * largest / top
        rounded = (rows / step).round().clamp(-top, top) * step
        error = (rounded - rows).square().sum(dim=1, keepdim=True)
        best, smallest = torch.where(error < smallest, rounded, best), torch.minimum(error, smallest)
    return best.reshape(weight.shape)


def _stored_weight(layer: nn.Module) -> Tensor:
    """Return the stored tensor that decides a layer's weight.

    Under a parametrization the weight is computed from it; under weight norm it is the magnitudes.
    """
    if not hasattr(layer, "parametrizations"):
        return _weight(layer).data
    stored = layer.parametrizations.weight  # type: ignore[union-attr]
    magnitudes_or_weight: Tensor = getattr(stored, "original0" if hasattr(stored, "original0") else "original")
    return magnitudes_or_weight.data


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    if not isinstance(weight, Tensor):
        raise ObfuscationError(
            f"a {type(layer).__qualname__} has a weight of type {type(weight).__name__}, not a tensor"
        )
    return weight


def _by_channel(layer: nn.Module) -> Tensor:
    """Return the weights as (output channels, weights of each)."""
    weight = _weight(layer).detach()
    if not is_transposed(layer):
        return weight.flatten(1)
    groups = int(getattr(layer, "groups", 1))
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return split.transpose(1, 2).reshape(groups * weight.shape[1], -1)


def _is_weighted(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    own = not any(True for _ in module.children()) or hasattr(module, "parametrizations")
    return own and isinstance(weight, Tensor) and weight.ndim >= 2
