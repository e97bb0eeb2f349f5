"""What free negatives are made from, and the module that all of them are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metav.errors import ZooError
from metav.models.architectures import Architecture, build
from metav.models.running import device_of, predict
from metav.models.stored_tensors import selected_rows
from metav.tasks.base import Task
from metav.tasks.classification import log_probabilities
from metav.zoo.architectures import center_and_scale, natural_inputs, numeric_targets
from metav.zoo.zoo import ZooModel

PROBABILITY_FLOOR = 1e-8
"""Least probability that a free negative answers; its logarithm is still a number."""
ENOUGH_INPUTS = 8
"""Natural inputs from which on they tell where inputs lie, and can be exchanged for each other."""
ANCHORS = 256
"""Natural inputs that are kept, at most."""
MOST_FEATURES = 4096
"""Numbers in one example, at most, for classical models to be fitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What free negatives are made from.

    task: the owner's task.
    architectures: callables that return fresh models; the first is the owner's own class.
    answers: what the models answer: "classes" (scores), "numbers", or "samples" (from latents).
    output_shape: of one answer.
    device: where the models run.
    natural: natural inputs (n, *input_shape).
    input_center, input_scale: mean and scale of each input feature, (features,).
    lower, upper: bounds of each input feature, (features,).
    center, scale: mean and scale of each output, (outputs,); 0 and 1 for classes.
    span: the smallest and the largest number in a sample; infinite for other answers.
    examples: of the training part, (n, features), or samples to imitate; None where none are in memory.
    targets: their classes (n,), or numbers (n, outputs); None for samples.
    """

    task: Task
    architectures: Sequence[Architecture]
    answers: str
    output_shape: tuple[int, ...]
    device: torch.device
    natural: Tensor
    input_center: Tensor
    input_scale: Tensor
    lower: Tensor
    upper: Tensor
    center: Tensor
    scale: Tensor
    span: tuple[float, float]
    examples: Tensor | None
    targets: Tensor | None

    @property
    def outputs(self) -> int:
        """Numbers in one answer."""
        return math.prod(self.output_shape)

    @property
    def features(self) -> int:
        """Numbers in one input."""
        return self.input_center.numel()

    @property
    def enough_inputs(self) -> bool:
        """Whether there are natural inputs enough to exchange them for each other."""
        return len(self.natural) >= ENOUGH_INPUTS


def material_of(task: Task, zoo_models: Sequence[ZooModel], architectures: Sequence[Architecture]) -> Material:
    """Return what the free negatives of a task can be made from.

    zoo_models: surrogates, whose independent ones tell the range of answers where the task does not.

    Raises ZooError without an architecture.
    """
    if not architectures:
        raise ZooError("free negatives need an architecture, which tells the shape of answers; pass at least one")
    natural = natural_inputs(task)[:ANCHORS]
    probe = task.read(build(architectures[0], 0))
    output_shape = tuple(predict(probe, natural[:2]).shape[1:])
    outputs = math.prod(output_shape)
    answers = _answers(task, outputs)
    finished = [entry.model for entry in zoo_models if not entry.is_positive and entry.fraction == 1.0]
    models = [task.read(model) for model in finished] or [probe]
    center, scale, span = torch.zeros(outputs), torch.ones(outputs), (-math.inf, math.inf)
    if answers != "classes":
        known = numeric_targets(task)
        if known is None or known.flatten(1).shape[1] != outputs:
            known = torch.cat([predict(model, natural) for model in models])
        center, scale = center_and_scale(known.flatten(1))
        span = (float(known.min()), float(known.max())) if answers == "samples" else span
    examples, targets = _training_part(task, answers, outputs)
    lower, upper = (bound.float().expand(natural.shape[1:]).flatten() for bound in (task.lower, task.upper))
    input_center, input_scale = _range_of(natural, lower, upper)
    return Material(
        task=task,
        architectures=architectures,
        answers=answers,
        output_shape=output_shape,
        device=device_of(models[0]),
        natural=natural,
        input_center=input_center,
        input_scale=input_scale,
        lower=lower,
        upper=upper,
        center=center,
        scale=scale,
        span=span,
        examples=examples,
        targets=targets,
    )


def _answers(task: Task, outputs: int) -> str:
    if task.kind.inputs_are_latents:
        return "samples"
    return "classes" if task.kind.answers_classes and outputs > 1 else "numbers"


def _range_of(natural: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and scale of each input feature, from the bounds of inputs where too few inputs are known."""
    if len(natural) >= ENOUGH_INPUTS:
        return center_and_scale(natural.flatten(1))
    return (lower + upper) / 2, torch.where(upper > lower, (upper - lower) / 4, torch.ones_like(lower))


def _training_part(task: Task, answers: str, outputs: int) -> tuple[Tensor | None, Tensor | None]:
    """Return examples (n, features) and targets that classical models can be fitted on; None and None for none."""
    examples, targets, held_out = task.examples, task.targets, task.validation_indices
    if not isinstance(examples, Tensor) or len(examples) < ENOUGH_INPUTS or examples[0].numel() > MOST_FEATURES:
        return None, None
    rows = torch.ones(len(examples), dtype=torch.bool)
    if isinstance(held_out, Tensor):
        rows[held_out] = False
    chosen = selected_rows(examples, rows.nonzero()[:, 0]).flatten(1).float()
    if answers == "samples":
        return (chosen, None) if chosen.shape[1] == outputs else (None, None)
    if not isinstance(targets, Tensor) or len(targets) != len(examples):
        return None, None
    if examples[0].shape != tuple(task.input_shape):
        return None, None
    if answers == "classes":
        whole = targets.ndim == 1 and not targets.is_floating_point()
        return (chosen, targets[rows].long()) if whole and int(targets.max()) < outputs else (None, None)
    numbers = selected_rows(targets, rows.nonzero()[:, 0]).reshape(len(chosen), -1).float()
    return (chosen, numbers) if numbers.shape[1] == outputs else (None, None)


class FreeModel(nn.Module):
    """A negative that nobody trained; it answers in the shape that the task's models answer.

    output_shape: of one answer.
    differentiable: whether a gradient flows from its answers to the queries.
    """

    runs_alone = True
    differentiable = True

    def __init__(self, output_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.output_shape = output_shape

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the answers (n, *output_shape) to inputs (n, *input_shape)."""
        return self.answer(inputs).to(inputs.dtype).reshape(len(inputs), *self.output_shape)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the answers (n, outputs)."""
        raise NotImplementedError

    def keep(self, **tensors: Tensor) -> None:
        """Register tensors as buffers."""
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.detach().clone())


def rows_of(model: nn.Module, inputs: Tensor, answers: str) -> Tensor:
    """Return a model's answers as rows (n, outputs): log-probabilities of classes, else the numbers themselves."""
    outputs: Tensor = model(inputs)
    return log_probabilities(outputs) if answers == "classes" else outputs.flatten(1)


def log_of(probabilities: Tensor) -> Tensor:
    """Return logarithms of probabilities that may be 0."""
    return probabilities.clamp_min(PROBABILITY_FLOOR).log()
