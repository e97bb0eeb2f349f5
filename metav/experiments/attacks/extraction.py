"""Attacks that train new models on a model's answers: knockoff nets, Jacobian augmentation, double distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.errors import InputError, ObfuscationError
from metav.models.architectures import Architecture, reinitialized
from metav.models.running import device_of, evaluating, predict
from metav.models.training import batches_per_epoch
from metav.obfuscations.steps import fresh_student
from metav.obfuscations.students import distill
from metav.support.randomness import derive_seed
from metav.tasks.base import Task, train_as_it_can
from metav.tasks.generation import Generation
from metav.tasks.supervised import SupervisedTask

JACOBIAN_SEEDS = 150
"""Natural inputs that a thief of `jbda` starts from, at most."""

JACOBIAN_ROUNDS = 4
"""How often `jbda` doubles its inputs."""

JACOBIAN_STEP = 0.1
"""Length of one step of `jbda`, in units of each feature's range (Papernot et al. 2017, section 5)."""

JACOBIAN_LARGEST = 6400
"""Inputs at which `jbda` stops to grow: what an owner's rate limit would stop."""


def knockoff(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    other: Task | None = None,
    architecture: Architecture | None = None,
) -> nn.Module:
    """Train a new model on the model's scores for inputs of other origin: knockoff nets, random policy.

    The budget is a share 1 - 0.5 `strength` of the inputs of `other`; for generation, whose inputs are latents, it is
    4,000 (1 - 0.5 `strength`) latents uniform within the bounds.

    other: the task whose inputs are asked; generation needs none.
    architecture: of the new model; None: the model's own class.

    Raises InputError without `other`, or for one of another input shape; ObfuscationError for data not in memory.
    Source: Orekondy et al. 2019.
    """
    student = fresh_student(model, strength, seed, architecture)
    generator = torch.Generator().manual_seed(derive_seed(seed, "knockoff"))
    budget = 1.0 - 0.5 * strength
    if isinstance(task, Generation):
        uniform = torch.rand(max(2, round(4000 * budget)), *task.input_shape, generator=generator)
        pool: Task = task.with_latents(task.lower + (task.upper - task.lower) * uniform)
        return train_as_it_can(pool, student, teacher=model, seed=derive_seed(seed, "training"))
    if other is None:
        raise InputError("knockoff needs data of another origin; pass other=, a task on them")
    if tuple(other.input_shape) != tuple(task.input_shape):
        raise InputError(f"other has inputs of shape {other.input_shape}, expected the task's {task.input_shape}")
    given = _in_memory(other, "knockoff")
    chosen = torch.randperm(len(given.examples), generator=generator)[: max(2, round(budget * len(given.examples)))]
    transfer = _in_memory(task, "knockoff").with_data(given.examples[chosen], given.targets[chosen])
    # As many steps as two trainings on the task's own data, whatever the size of the transfer set.
    return train_as_it_can(
        transfer, student, teacher=model, seed=derive_seed(seed, "training"), epochs=_epochs(task, transfer, 2)
    )


def jbda(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    labels: bool = True,
) -> nn.Module:
    """Train a new model from few natural inputs and their neighbours: Jacobian-based augmentation.

    It starts from 150 (1 - 0.5 `strength`) natural inputs. Each round trains the new model on the model's answers and
    adds, for each input, a neighbour a tenth of the range away in the direction that changes most what the new model
    answers; the direction turns every other round.

    architecture: of the new model; None: the model's own class.
    labels: learn from the model's labels alone where the task has classes, as in the paper; else from its scores.

    Raises ObfuscationError for generation, whose thief draws as many latents as he likes. Source: Papernot et al. 2017,
    algorithm 1.
    """
    if task.kind.inputs_are_latents:
        raise ObfuscationError("jbda needs classification or regression, got generation; use extract_scores")
    given, student = _in_memory(task, "jbda"), fresh_student(model, strength, seed, architecture)
    count = min(len(given.examples), max(2, round(JACOBIAN_SEEDS * (1.0 - 0.5 * strength))))
    inputs = task.natural_queries(count, seed=derive_seed(seed, "jbda"))
    hard = labels and task.kind.answers_classes

    def answer(batch: Tensor) -> Tensor:
        answers = predict(model, batch).flatten(1)
        return 50.0 * functional.one_hot(answers.argmax(dim=1), answers.shape[1]).float() if hard else answers

    for round_ in range(JACOBIAN_ROUNDS + 1):
        known = given.with_data(inputs, _placeholders(given, len(inputs)))
        last = round_ == JACOBIAN_ROUNDS
        share = 1.0 if last else 0.3
        student = train_as_it_can(
            known,
            student,
            teacher=answer,
            seed=derive_seed(seed, "training", round_),
            epochs=_epochs(task, known, share),
        )
        if not last and 2 * len(inputs) <= JACOBIAN_LARGEST:
            sign = 1.0 if round_ % 2 == 0 else -1.0
            inputs = torch.cat([inputs, _neighbours(student, inputs, answer(inputs), task, sign)])
    return student


def double_distill(
    model: nn.Module,
    task: Task,
    *,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
    between: Architecture | None = None,
) -> nn.Module:
    """Distil the model into another, and that into a third: twice as far from the owner as one distillation.

    architecture: of the third; None: the model's own class.
    between: of the second; None: `architecture`.
    """
    first = distill(
        model, task, strength=strength, seed=derive_seed(seed, "first"), architecture=between or architecture
    )
    if architecture is None and between is not None:
        # `distill` would make another model of the first student's class.
        second = reinitialized(model, derive_seed(seed, "last weights"))
        return train_as_it_can(
            task,
            second,
            teacher=first,
            seed=derive_seed(seed, "training"),
            truth=0.2 * strength,
            epochs=2.0 * task.epochs,
        )
    return distill(first, task, strength=strength, seed=derive_seed(seed, "second"), architecture=architecture)


def _neighbours(student: nn.Module, inputs: Tensor, answers: Tensor, task: Task, sign: float) -> Tensor:
    """Return inputs (n, ...) moved along the sign of the student's Jacobian, of the answered class or of the sum."""
    device = device_of(student)
    moving = inputs.to(device, copy=True).requires_grad_(True)
    with evaluating(student), torch.enable_grad():
        outputs = student(moving).flatten(1)
        rows = outputs.gather(1, answers.to(device).argmax(dim=1, keepdim=True))
        (gradient,) = torch.autograd.grad(rows.sum() if task.kind.answers_classes else outputs.sum(), moving)
    step = sign * JACOBIAN_STEP * gradient.sign().cpu() * (task.upper - task.lower)
    return torch.minimum(torch.maximum(inputs + step, task.lower), task.upper).detach()


def _epochs(task: Task, known: Task, share: float) -> float:
    """Return epochs on `known` that make a share of the steps of one training on the task's own data."""
    given, own = _in_memory(known, "extraction"), _in_memory(task, "extraction")
    options = own.options
    steps = options.epochs * batches_per_epoch(len(own.training_indices), options.batch_size)
    return share * steps / batches_per_epoch(len(given.training_indices), options.batch_size)


def _placeholders(given: SupervisedTask, count: int) -> Tensor:
    """Return targets of the task's kind that no training looks at: the thief has none."""
    return given.targets[torch.arange(count) % len(given.targets)]


def _in_memory(task: Task, name: str) -> SupervisedTask:
    if not isinstance(task, SupervisedTask):
        raise ObfuscationError(f"{name} needs a task with inputs and targets in memory, got {type(task).__name__}")
    return task
