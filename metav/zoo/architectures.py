"""Architectures for independent models and thieves: plain networks that fit a task, and the check that others do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from metav.errors import InputError, ModelError
from metav.models.architectures import Architecture, PlainArchitecture, build
from metav.models.running import predict
from metav.support.model_interface import PLAIN, ModelInterface
from metav.tasks.base import Task
from metav.tasks.model_checks import check_backward


def plain_architectures(owner: nn.Module, task: Task, *, unusual: bool = False) -> list[Architecture]:
    """Return two plain fully connected networks that fit a task.

    unusual: whether they have other widths and activations than those of the zoo, for suspects.

    Their scales come from the task's inputs and, for tasks without classes, its targets or samples.
    """
    inputs = natural_inputs(task)
    answers = predict(owner, inputs[:2])
    output_shape = tuple(answers.shape[1:])
    targets = numeric_targets(task)
    outputs = math.prod(output_shape)
    if targets is None or targets.flatten(1).shape[1] != outputs:
        output_center, output_scale = torch.zeros(1), torch.ones(1)
    else:
        output_center, output_scale = center_and_scale(targets.flatten(1))
    center, scale = center_and_scale(inputs.flatten(1))
    plans = [((96, 48), "gelu"), ((200, 100, 50), "tanh")] if unusual else [((128,), "relu"), ((128, 64), "relu")]
    return [
        PlainArchitecture(
            tuple(task.input_shape), output_shape, widths, activation, center, scale, output_center, output_scale
        )
        for widths, activation in plans
    ]


def listed(architectures: object) -> list[Architecture]:
    """Return architectures as a list, also where a single one was given.

    Raises ModelError for a model, InputError for what is no sequence.
    """
    if isinstance(architectures, nn.Module):
        raise ModelError(
            f"architectures is a model ({type(architectures).__name__}), expected callables that return fresh ones; "
            "pass [lambda: YourModel(...)]"
        )
    if callable(architectures):
        return [architectures]
    if isinstance(architectures, str) or not isinstance(architectures, Iterable):
        raise InputError(
            f"architectures must be a list of callables that return fresh models, got {type(architectures).__name__}; "
            "pass [lambda: YourModel(...)]"
        )
    return list(architectures)


def check_architectures(architectures: Sequence[Architecture], task: Task, interface: ModelInterface = PLAIN) -> None:
    """Raise ModelError, naming the index, unless each architecture gives a model that fits the task.

    interface: how they are called and what of their answers counts, as far as it suits them.
    """
    for index, architecture in enumerate(architectures):
        if not callable(architecture):
            raise ModelError(
                f"architectures[{index}] must be a callable that returns a fresh torch.nn.Module, got "
                f"{type(architecture).__name__}; pass the class or a function, not a model"
            )
        if isinstance(architecture, nn.Module):
            raise ModelError(
                f"architectures[{index}] is a model, expected a callable that returns a fresh one; pass its class or "
                "lambda: YourModel(...)"
            )
        try:
            model = build(architecture, 0)
            model = task.adapted(model, interface.suiting(model.forward))
            task.check_model(model)
            check_backward(model, task)
        except Exception as error:
            raise ModelError(f"architectures[{index}] does not fit the task: {error}") from error


def natural_inputs(task: Task) -> Tensor:
    """Return up to 512 natural inputs (n, *input_shape); two of a task that does not say how many it has."""
    if task.examples is None and not task.kind.inputs_are_latents:
        return task.natural_queries(2, seed=0)
    return task.natural_queries(512 if task.natural_count is None else min(512, task.natural_count), seed=0)


def numeric_targets(task: Task) -> Tensor | None:
    """Return the numbers (n, ...) that models shall answer: targets, or samples to imitate; None for classes."""
    targets = task.examples if task.kind.inputs_are_latents else task.targets
    if targets is None or not targets.is_floating_point():
        return None
    return targets if targets.ndim > 1 else targets[:, None]


def center_and_scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per feature; a scale of 1 for constant features."""
    deviation = values.std(dim=0)
    return values.mean(dim=0), torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
