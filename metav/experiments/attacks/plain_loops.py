"""Thieves who write their own training loops: plain fine-tuning, pruning and distillation, without metav's code."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from metav.errors import ObfuscationError
from metav.experiments.scenarios.recipes.generator_loops import copy_generator, train_generator
from metav.experiments.scenarios.recipes.plain_loop import Answers, Loop, train_plainly
from metav.models.architectures import Architecture
from metav.models.running import copied
from metav.obfuscations.steps import check_strength, fresh_student
from metav.support.randomness import derive_seed
from metav.tasks.base import Task

REFERENCE_RATE = 2e-3
"""Learning rate of Adam from scratch, where a task states none."""


def loop_finetune(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Fine-tune all weights by Adam at an eighth of the task's rate for a part of its epochs, as `strength` says."""
    loop = Loop(epochs=(0.1 + 0.5 * strength) * task.epochs, rate=_rate(task) / 8.0, batch=_batch(task))
    return _finetuned(model, task, loop, strength, seed)


def loop_finetune_sgd(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Fine-tune by gradient descent with momentum and decay, on inputs that change at each step, for longer."""
    loop = Loop(
        epochs=(0.3 + strength) * task.epochs,
        rate=_rate(task),
        batch=_batch(task),
        optimizer="sgd",
        decay=1e-3,
        augmented=True,
    )
    return _finetuned(model, task, loop, strength, seed)


def loop_finetune_hard(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Fine-tune by Adam at up to the rate of a training from scratch, for 0.3 to 0.9 of the task's epochs."""
    loop = Loop(
        epochs=(0.2 + 0.7 * strength) * task.epochs,
        rate=_rate(task) * (0.25 + 0.75 * strength),
        batch=_batch(task),
        augmented=True,
        smoothing=0.05,
    )
    return _finetuned(model, task, loop, strength, seed)


def loop_prune_finetune(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Set the smallest weights of each layer to zero, a share of 0.15 + 0.45 `strength`, and fine-tune by Adam."""
    check_strength(strength)
    pruned, share = copied(model), 0.15 + 0.45 * strength
    with torch.no_grad():
        for weight in pruned.parameters():
            if weight.ndim > 1:
                least = weight.abs().flatten().kthvalue(max(1, int(share * weight.numel()))).values
                weight[weight.abs() <= least] = 0.0
    loop = Loop(epochs=0.3 * task.epochs, rate=_rate(task) / 6.0, batch=_batch(task), optimizer="adamw")
    return _finetuned(pruned, task, loop, strength, seed)


def loop_distill(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Train a new model on the model's scores by Adam at a constant rate, without temperature, for twice the epochs."""
    return _student(model, task, strength, seed, architecture, labels_alone=False)


def loop_extract_labels(
    model: nn.Module, task: Task, *, strength: float, seed: int, architecture: Architecture | None = None
) -> nn.Module:
    """Train a new model on the model's labels alone, on inputs that change at each step.

    Raises ObfuscationError for a task without classes.
    """
    if not task.kind.answers_classes:
        raise ObfuscationError(f"loop_extract_labels needs a classification task, got {task.name}; use loop_distill")
    return _student(model, task, strength, seed, architecture, labels_alone=True)


def _finetuned(model: nn.Module, task: Task, loop: Loop, strength: float, seed: int) -> nn.Module:
    check_strength(strength)
    clone, own = copied(model), derive_seed(seed, "loop")
    inputs, targets = _examples(task)
    if targets is None:
        latent = math.prod(task.input_shape)
        return train_generator(clone, inputs, loop, latent=latent, seed=own, keeps_latents=True)
    answers: Answers = "classes" if task.kind.answers_classes else "numbers"
    return train_plainly(clone, inputs, targets, loop, answers=answers, seed=own)


def _student(
    model: nn.Module, task: Task, strength: float, seed: int, architecture: Architecture | None, *, labels_alone: bool
) -> nn.Module:
    student = fresh_student(model, strength, seed, architecture)
    inputs, targets = _examples(task)
    loop = Loop(epochs=2.0 * task.epochs, rate=_rate(task), batch=_batch(task), augmented=labels_alone)
    own = derive_seed(seed, "loop")
    if targets is None:
        return copy_generator(student, model, loop, latent=tuple(task.input_shape), count=2 * len(inputs), seed=own)
    # the more the thief hides, the fewer inputs he asks about
    kept = max(16, round((1.0 - 0.4 * strength) * len(inputs)))
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(derive_seed(seed, "asked")))[:kept]
    loop = replace(loop, epochs=loop.epochs * len(inputs) / kept)
    answers: Answers = "classes" if task.kind.answers_classes else "numbers"
    return train_plainly(
        student,
        inputs[order],
        targets[order],
        loop,
        answers=answers,
        seed=own,
        teacher=model,
        labels_alone=labels_alone,
    )


def _examples(task: Task) -> tuple[Tensor, Tensor | None]:
    if task.examples is None:
        raise ObfuscationError(f"a loop needs examples in memory, and this {task.name} task has none; use fine_prune")
    return task.examples, None if task.kind.inputs_are_latents else task.targets


def _rate(task: Task) -> float:
    return REFERENCE_RATE if task.options is None else task.options.learning_rate


def _batch(task: Task) -> int:
    return 48 if task.options is None else task.options.batch_size
