"""Obfuscations that train a new model, a student, on the answers of the owner's: distillation and extraction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metav.errors import ObfuscationError
from metav.models.architectures import Architecture
from metav.models.running import predict
from metav.models.stored_tensors import joined_rows, row_slices, selected_rows
from metav.models.training import OnEpoch
from metav.obfuscations.steps import fresh_student, training_seed
from metav.support.randomness import derive_seed
from metav.support.torch_state import in_standard_torch_state
from metav.tasks.base import Task, train_as_it_can
from metav.tasks.generation import Generation
from metav.tasks.user_tasks import as_task

COPIES = 3
"""Queries that a thief makes from each natural input he holds, by mixing it with other inputs."""


@in_standard_torch_state
def distill(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train a new model on the model's outputs mixed with the true targets, whose weight is 0.2 `strength`.

    architecture: of the new model; None for the same class.

    The weight of the true targets is considerably lower than that of the outputs, as Hinton et al. (2015) advise. The
    training takes twice the task's epochs, as soft targets keep on teaching.
    """
    task = as_task(task)
    student = fresh_student(model, strength, seed, architecture)
    return train_as_it_can(
        task,
        student,
        teacher=model,
        seed=training_seed(seed),
        truth=0.2 * strength,
        epochs=2.0 * task.epochs,
        on_epoch=on_epoch,
    )


@in_standard_torch_state
def extract_scores(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train a new model on the model's outputs alone, asked on inputs that the thief has made himself.

    architecture: of the new model; None for the same class.

    From each natural input the thief makes three: mixtures with a weight of up to 0.5 for another input, and noise of
        0.05 `strength` of the range. For generation he asks a set of latents that shrinks with the strength, from 4,000
        to 1,000.
    """
    task = as_task(task)
    student = fresh_student(model, strength, seed, architecture)
    own = perturbed(task, strength, derive_seed(seed, "inputs"))
    epochs = _extraction_epochs(task)
    return train_as_it_can(own, student, teacher=model, seed=training_seed(seed), epochs=epochs, on_epoch=on_epoch)


@in_standard_torch_state
def extract_labels(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    on_epoch: OnEpoch | None = None,
) -> nn.Module:
    """Train a new classifier on nothing but the model's labels, asked on inputs as in `extract_scores`.

    architecture: of the new model; None for the same class.

    Raises ObfuscationError for a task without labels.
    """
    task = as_task(task)
    if not (task.kind.answers_classes or task.kind.answers_places):
        raise ObfuscationError(f"extract_labels needs a classification task, got {task.name}; use extract_scores")
    student = fresh_student(model, strength, seed, architecture)
    own = perturbed(task, strength, derive_seed(seed, "inputs"))

    def label(inputs: Tensor) -> Tensor:
        return task.labels_alone(predict(model, inputs, device=inputs.device))

    epochs = _extraction_epochs(task)
    return train_as_it_can(own, student, teacher=label, seed=training_seed(seed), epochs=epochs, on_epoch=on_epoch)


def _extraction_epochs(task: Task) -> float | None:
    """Return the epochs over a thief's own inputs: two thirds of the task's, as there are three times as many inputs.

    None, the task's epochs, where the inputs are not multiplied.
    """
    if task.kind.inputs_are_latents or not task.takes_other_data:
        return None
    return 0.67 * task.epochs


def perturbed(task: Task, strength: float, seed: int) -> Task:
    """Return the task on the inputs that a thief could make of it.

    Their targets are placeholders, since he has no labels. A task of the user's own without `with_data` is returned as
    it is.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(task, Generation):
        return task.with_latents(task.draw(round(4000 * (1.0 - 0.75 * strength)), generator))
    if not task.takes_other_data or task.examples is None or task.targets is None:
        return task
    examples, copies = task.examples, torch.arange(len(task.examples)).repeat_interleave(COPIES)
    others = copies[torch.randperm(len(copies), generator=generator)]
    weights = 0.5 * torch.rand(len(copies), generator=generator).reshape(-1, *[1] * (examples.ndim - 1))

    def mixed(rows: slice) -> Tensor:
        weight, inputs = weights[rows], examples[copies[rows]]
        noise = 0.05 * strength * torch.randn(inputs.shape, generator=generator) * (task.upper - task.lower)
        between = (1.0 - weight) * inputs + weight * examples[others[rows]]
        return torch.minimum(torch.maximum(between + noise, task.lower), task.upper)

    slices = row_slices(len(copies), examples[0].numel() * examples.element_size())
    return task.with_data(joined_rows(map(mixed, slices)), selected_rows(task.targets, copies))
