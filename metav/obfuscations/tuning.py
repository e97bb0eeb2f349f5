"""Obfuscations that train the owner's weights further: fine-tuning, retraining, pruning and repair, against attacks."""

from __future__ import annotations

import functools

import torch
from torch import nn

from metav.errors import ObfuscationError
from metav.models.architectures import Architecture
from metav.models.training import OnEpoch
from metav.obfuscations.adversarial_model import AdversarialModel
from metav.obfuscations.layers import layer_parameters, weight_parameters, weighted_layers
from metav.obfuscations.steps import begin, smallest_weights, train_on, with_new_last_layer
from metav.support.torch_state import in_standard_torch_state
from metav.tasks.base import Task
from metav.tasks.user_tasks import as_task


@in_standard_torch_state
def finetune_last(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train the last layer further (FTLL) for a share 0.5 `strength` of the task's epochs."""
    clone = begin(model, strength)
    last = weighted_layers(clone, task)[-1]
    return train_on(task, clone, 0.5 * strength, seed, parameters=layer_parameters(last), on_epoch=on_epoch)


@in_standard_torch_state
def finetune_all(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train all layers further (FTAL) for a share 0.5 `strength` of the task's epochs."""
    return train_on(task, begin(model, strength), 0.5 * strength, seed, on_epoch=on_epoch)


@in_standard_torch_state
def retrain_last(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Give the last layer new weights and train it alone (RTLL), for a share 0.5 + 0.5 `strength` of the epochs."""
    clone, last = with_new_last_layer(model, task, strength, seed)
    share = 0.5 + 0.5 * strength
    return train_on(task, clone, share, seed, parameters=layer_parameters(last), on_epoch=on_epoch)


@in_standard_torch_state
def retrain_all(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Give the last layer new weights and train all layers (RTAL), for a share 0.4 + 0.4 `strength` of the epochs.

    Raises ObfuscationError for generation. A generator learns which sample belongs to which latent; with a new last
    layer it may learn another assignment, and then its answers to the owner's queries have nothing in common with the
    owner's.
    """
    task = as_task(task)
    if task.kind.inputs_are_latents:
        raise ObfuscationError(
            "retrain_all needs classification or regression, got generation: a generator with a new last layer gives "
            "each latent another sample, so that its outputs show no origin; use retrain_last or finetune_all"
        )
    clone, _ = with_new_last_layer(model, task, strength, seed)
    return train_on(task, clone, 0.4 + 0.4 * strength, seed, on_epoch=on_epoch)


@in_standard_torch_state
def prune_then_finetune(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Set a share 0.3 + 0.5 `strength` of each layer's weights to zero, then train the others; the zeros stay.

    The training takes 0.35 of the task's epochs.
    """
    clone = begin(model, strength)
    handles, masks = [], []
    for _, weight in weight_parameters(clone):
        pruned = smallest_weights(weight, 0.3 + 0.5 * strength)
        weight.data[pruned] = 0.0
        masks.append((weight, pruned))
        hook = functools.partial(torch.Tensor.masked_fill, mask=pruned, value=0.0)
        handles.append(weight.register_hook(hook))  # type: ignore[no-untyped-call]
    try:
        train_on(task, clone, 0.35, seed, on_epoch=on_epoch)
    finally:
        for handle in handles:
            handle.remove()
    for weight, pruned in masks:
        weight.data[pruned] = 0.0
    return clone


@in_standard_torch_state
def adversarial_train(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train further for 0.4 of the task's epochs on batches half of which are adversarial examples.

    Each is made by one signed gradient step from a random start (Wong et al. 2020), and differs from its input by at
    most 0.1 `strength` of each feature's range.

    Raises ObfuscationError for generation, whose inputs are latents.
    """
    task = as_task(task)
    if task.kind.inputs_are_latents:
        raise ObfuscationError("adversarial_train needs classification or regression, got generation; use finetune_all")
    wrapper = AdversarialModel(begin(model, strength), 0.1 * strength * (task.upper - task.lower), task)
    callback = None if on_epoch is None else lambda share, outer: on_epoch(share, outer.inner)
    train_on(task, wrapper, 0.4, seed, on_epoch=callback)
    return wrapper.inner.eval()
