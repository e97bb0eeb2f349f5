"""Steps that several obfuscations share: a private copy, a fresh student, a training, random numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metav.errors import InputError, ObfuscationError
from metav.models.architectures import Architecture, build, redraw, redraw_normally, reinitialized
from metav.models.running import copied, device_of
from metav.models.training import OnEpoch
from metav.obfuscations.fitting import has_layers_below_last
from metav.obfuscations.layers import layer_parameters, weighted_layers
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.base import Task, train_as_it_can
from metav.tasks.user_tasks import as_task


def check_strength(strength: float) -> None:
    """Raise InputError unless 0 < strength <= 1."""
    if not 0.0 < strength <= 1.0:
        raise InputError(f"strength must lie in (0, 1], got {strength!r}")


def begin(model: nn.Module, strength: float) -> nn.Module:
    """Return a private copy of a model to work on, after a check of the strength."""
    check_strength(strength)
    return copied(model)


def fresh_student(model: nn.Module, strength: float, seed: int, architecture: Architecture | None) -> nn.Module:
    """Return a new model on the owner's device: of an architecture, or of the owner's class with new weights.

    architecture: a callable that returns a fresh model; None for the owner's class.
    """
    check_strength(strength)
    start = derive_seed(seed, "initial weights")
    return reinitialized(model, start) if architecture is None else build(architecture, start).to(device_of(model))


def with_new_last_layer(model: nn.Module, task: Task, strength: float, seed: int) -> tuple[nn.Module, nn.Module]:
    """Return a copy of a model whose last layer has new weights, and that layer.

    Raises ObfuscationError for a model of which nothing would be left.
    """
    clone = begin(model, strength)
    reason = has_layers_below_last(clone, task)
    if reason is not None:
        raise ObfuscationError(f"the last layer of this model cannot be drawn anew: {reason}; use finetune_all")
    last = weighted_layers(clone, task)[-1]
    with isolated_rng(derive_seed(seed, "last layer")):
        own = layer_parameters(last)
        # what is registered inside such a layer are other layers, which come before it
        if len(own) < len(list(last.parameters())):
            redraw_normally(own)
        else:
            redraw(last)
    return clone, last


def train_on(
    task: Task,
    model: nn.Module,
    share: float,
    seed: int,
    *,
    parameters: list[nn.Parameter] | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train a model further for a share of the task's epochs, and return it.

    share: of the task's epochs, > 0.
    parameters: the only ones to train; None for all.
    """
    task = as_task(task)
    epochs = share * task.epochs
    return train_as_it_can(
        task, model, seed=training_seed(seed), parameters=parameters, epochs=epochs, on_epoch=on_epoch
    )


def random_generator(seed: int, label: str) -> torch.Generator:
    """Return a generator of random numbers for one purpose, which `label` names."""
    return torch.Generator().manual_seed(derive_seed(seed, label))


def between(lowest: float, highest: float, generator: torch.Generator) -> float:
    """Return a random number between two others, uniformly distributed."""
    return lowest + (highest - lowest) * float(torch.rand((), generator=generator))


def training_seed(seed: int) -> int:
    """Return the seed of an obfuscation's training."""
    return derive_seed(seed, "training")


def smallest_weights(weight: Tensor, share: float) -> Tensor:
    """Return a boolean mask, of the weight's shape, of a share of the entries: the smallest in magnitude."""
    flat = weight.detach().abs().flatten()
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[flat.argsort(stable=True)[: int(share * flat.numel())]] = True
    return mask.reshape(weight.shape)
