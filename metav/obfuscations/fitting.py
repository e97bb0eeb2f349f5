"""Which families fit an owner's model: told before anything is trained, with the reason why one does not."""

from __future__ import annotations

from torch import nn

from metav.obfuscations.layers import (
    HIDDEN_CHANNELS,
    channel_count,
    hidden_layers,
    layer_parameters,
    weight_parameters,
    weighted_layers,
)
from metav.tasks.base import Task
from metav.tasks.model_checks import no_gradient_reason


def has_weights(model: nn.Module, task: Task) -> str | None:
    """Return why a model has no weights to change, None where it has some."""
    return None if any(True for _ in weight_parameters(model)) else "it needs a weight matrix"


def has_layers_below_last(model: nn.Module, task: Task) -> str | None:
    """Return why nothing of a model is left when its last layer is drawn anew, None where something is."""
    missing = has_weights(model, task)
    if missing is None:
        drawn = {id(parameter) for parameter in layer_parameters(weighted_layers(model, task)[-1])}
        if all(id(weight) in drawn for _, weight in weight_parameters(model)):
            return "it needs a layer below the last one, as nothing else of the owner's would be left"
    return missing


def has_hidden_channels(model: nn.Module, task: Task) -> str | None:
    """Return why a model has no hidden channels to prune, None where it has some."""
    missing = has_weights(model, task)
    if missing is None and all(channel_count(layer) < 2 for layer in hidden_layers(model, task)):
        return f"it needs {HIDDEN_CHANNELS}, that can be set to zero"
    return missing


def has_gradient_to_inputs(model: nn.Module, task: Task) -> str | None:
    """Return why no adversarial examples of a model can be made, None where they can."""
    reason = no_gradient_reason(model, task)
    return None if reason is None else f"it needs a gradient to the inputs: {reason}"
