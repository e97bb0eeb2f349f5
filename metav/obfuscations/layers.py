"""The layers of a model that carry weights: found, put in the order of use, pruned, rounded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from metav.errors import ObfuscationError
from metav.models.adapters import AdaptedModel
from metav.models.copying import duplicate, recompute_weights
from metav.models.running import device_of, evaluating
from metav.support.randomness import isolated_rng
from metav.tasks.base import Task

HIDDEN_CHANNELS = "a hidden layer with two channels or units, or more"
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
"""Layers of recurrent units; each unit has rows in all weights and biases, one per gate."""
MAGNITUDES = ("original0", "weight_g")
"""Endings of the names under which weight norm keeps magnitudes: only its directions count as weights."""


def weight_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the names and weight tensors of at least two dimensions (no biases, no normalisation), each once."""
    for name, parameter in model.named_parameters():
        if _is_weight(parameter) and not name.endswith(MAGNITUDES):
            yield name, parameter


def weighted_layers(model: nn.Module, task: Task) -> list[nn.Module]:
    """Return the modules that hold a weight of two dimensions and more themselves, in the order of a forward pass.

    task: gives the inputs of that pass.

    A layer is placed where it is called last; one that is never called itself, where the module around it is. In a
    scripted model, whose calls cannot be watched, the order is that of registration. Of a model with several outputs
    those that take no part in the one that counts are left out.

    Raises ObfuscationError for a model without any.
    """
    inner = {id(part) for module in model.modules() for part in _parametrizations(module).modules()}
    layers = [module for module in model.modules() if id(module) not in inner and _holds_weights(module)]
    if not layers:
        raise ObfuscationError(
            f"the model of class {type(model).__qualname__} has no layer with a weight matrix; this obfuscation "
            "needs at least one"
        )
    idle = _idle(layers, model, task)
    layers = [layer for layer in layers if id(layer) not in idle] or layers
    calls = _last_calls(model, task)
    place = {id(model): calls.get(id(model), -1)}
    for module in model.modules():
        for child in module.children():
            place[id(child)] = calls.get(id(child), place[id(module)])
    return sorted(layers, key=lambda layer: place[id(layer)])


def hidden_layers(model: nn.Module, task: Task) -> list[nn.Module]:
    """Return the layers before the last one that have output channels, in the order of a forward pass."""
    return [layer for layer in weighted_layers(model, task)[:-1] if channel_count(layer)]


def layer_parameters(layer: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a layer itself, without those of layers that are registered inside it."""
    return [*layer.parameters(recurse=False), *_parametrizations(layer).parameters()]


def _idle(layers: list[nn.Module], model: nn.Module, task: Task) -> set[int]:
    """Return the ids of the layers that take no part in the answer of a model with several; others have none."""
    if not isinstance(model, AdaptedModel):
        return set()
    parameters = {id(layer): layer_parameters(layer) for layer in layers}
    every = [entry for own in parameters.values() for entry in own if entry.requires_grad]
    with isolated_rng(0), evaluating(model), torch.enable_grad():
        answer = model(task.natural_queries(2, seed=0).to(device_of(model)))
        if not answer.requires_grad or not every:
            return set()
        found = torch.autograd.grad(answer.sum(), every, allow_unused=True)
    used = {id(entry) for entry, gradient in zip(every, found, strict=True) if gradient is not None}
    return {key for key, own in parameters.items() if not any(id(entry) in used for entry in own)}


def _last_calls(model: nn.Module, task: Task) -> dict[int, int]:
    """Return, by the id of a module, the number of its last call in a forward pass; nothing of a scripted model."""
    if isinstance(model, torch.jit.ScriptModule):
        return {}
    calls: dict[int, int] = {}
    numbers = itertools.count()

    def note(module: nn.Module, _: Any) -> None:
        calls[id(module)] = next(numbers)

    watched = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    handles = [module.register_forward_pre_hook(note) for module in watched]
    try:
        with isolated_rng(0), evaluating(model):
            model(task.natural_queries(2, seed=0).to(device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _holds_weights(module: nn.Module) -> bool:
    return any(_is_weight(parameter) for parameter in layer_parameters(module))


def _is_weight(parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and parameter.is_floating_point() and parameter.numel() > 1


def _parametrizations(module: nn.Module) -> nn.Module:
    """Return the part that computes the module's weights from others; an empty one where it has none."""
    found = getattr(module, "parametrizations", None)
    return found if isinstance(found, nn.Module) else nn.Module()


def is_transposed(layer: nn.Module) -> bool:
    """Return whether a layer's weight has its outputs on axis 1 (transposed convolutions)."""
    return bool(getattr(layer, "transposed", False))


def channel_count(layer: nn.Module) -> int:
    """Return how many output channels (units) a layer has that `zero_channels` can silence; 0 for one without any."""
    if isinstance(layer, RECURRENT):
        projected = getattr(layer, "proj_size", 0)
        plain = all(isinstance(getattr(layer, name, None), nn.Parameter) for name, _ in _units_of(layer))
        return 0 if projected or not plain else layer.hidden_size
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        return 0
    count = len(_by_channel(layer))
    return count if _is_plain(layer) or _can_be_silenced(layer) else 0


def channel_norms(layer: nn.Module) -> Tensor:
    """Return the L1 norm of the weights of each output channel, (channels,)."""
    return _by_channel(layer).abs().sum(dim=1)


def zero_channels(layer: nn.Module, channels: Tensor) -> None:
    """Set weights and bias of the given output channels to zero, in place; of a recurrent layer, those of all gates."""
    with torch.no_grad():
        if isinstance(layer, RECURRENT):
            for _, parameter in _units_of(layer):
                _by_unit(parameter.data, layer.hidden_size)[:, channels] = 0.0
            return
        weight = _stored(layer, "weight")
        if is_transposed(layer):
            groups = int(getattr(layer, "groups", 1))
            size = weight.shape[1]
            for channel in channels.tolist():
                span = weight.shape[0] // groups
                group = channel // size
                weight[group * span : (group + 1) * span, channel % size] = 0.0
        else:
            weight[channels] = 0.0
        if isinstance(getattr(layer, "bias", None), Tensor):
            _stored(layer, "bias")[channels] = 0.0


def _by_unit(parameter: Tensor, units: int) -> Tensor:
    """Return a view (gates, units, ...) of a recurrent layer's parameter."""
    return parameter.view(-1, units, *parameter.shape[1:])


def _units_of(layer: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a recurrent layer; each has one block of rows, a row per unit, for each gate."""
    return layer.named_parameters(recurse=False)


def _is_plain(layer: nn.Module) -> bool:
    return any(name == "weight" for name, _ in layer.named_parameters(recurse=False))


def _can_be_silenced(layer: nn.Module) -> bool:
    """Return whether a channel becomes zero with what it is stored as, where the weight is computed from that."""
    trial = duplicate(layer)
    try:
        zero_channels(trial, torch.tensor([0]))
        return float(channel_norms(recompute_weights(trial))[0]) == 0.0
    # what other people's reparametrisations raise is not known; then the layer is left alone
    except Exception:
        return False


def following_norms(model: nn.Module) -> dict[int, nn.Module]:
    """Return, by the id of a layer, the normalisation layer registered right after it with its number of channels."""
    pairs: dict[int, nn.Module] = {}
    previous: nn.Module | None = None
    for module in model.modules():
        if channel_count(module):
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


def _stored(layer: nn.Module, name: str) -> Tensor:
    """Return the stored tensor that decides a layer's "weight" or "bias", without its history.

    Under a parametrization or a hook that one is computed from it; under weight norm it is the magnitudes.
    """
    parametrized = _parametrizations(layer)._modules.get(name)
    stored = dict((layer if parametrized is None else parametrized).named_parameters(recurse=False))
    # by hooks: the old weight_norm; pruning and the old spectral_norm
    endings = ("_g", "_orig") if parametrized is None else ("original0", "original")
    names = [f"{name}{ending}" if parametrized is None else ending for ending in endings]
    found = next((stored[entry] for entry in names if entry in stored), None)
    current: Tensor = getattr(layer, name)
    return current.data if found is None else found.data


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    if not isinstance(weight, Tensor):
        raise ObfuscationError(
            f"a {type(layer).__qualname__} has a weight of type {type(weight).__name__}, not a tensor"
        )
    return weight


def _by_channel(layer: nn.Module) -> Tensor:
    """Return the weights as (output channels, weights of each)."""
    if isinstance(layer, RECURRENT):
        blocks = [parameter.detach() for _, parameter in _units_of(layer) if parameter.ndim > 1]
        return torch.cat([_by_unit(block, layer.hidden_size).transpose(0, 1).flatten(1) for block in blocks], dim=1)
    weight = _weight(layer).detach()
    if not is_transposed(layer):
        return weight.flatten(1)
    groups = int(getattr(layer, "groups", 1))
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return split.transpose(1, 2).reshape(groups * weight.shape[1], -1)
