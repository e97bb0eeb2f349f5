"""What a model does: its data, bounds, loss and training (classification, regression, generation, or your own)."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.datasets import (
    as_float_tensor,
    as_label_tensor,
    balanced_order,
    bounds_of,
    check_same_length,
    checked_bounds,
    checked_levels,
)
from metav.digests import tensor_digest
from metav.errors import InputError
from metav.generators import OBJECTIVES, GeneratorTraining, energy_distance
from metav.randomness import derive_seed
from metav.task_base import ArrayTask, Augment, Task
from metav.training import OnEpoch, Teacher, TrainingOptions, batches_per_epoch, device_of, fit, predict

__all__ = ["Classification", "Generation", "Regression", "Task", "log_probabilities"]

TEMPERATURE = 2.0
"""Softmax temperature at which a student classifier matches its teacher."""


class _Supervised(ArrayTask):
    """Inputs with targets."""

    targets: Tensor

    def natural_queries(self, count: int, *, seed: int) -> Tensor:
        """Return `count` different inputs, (count, *input_shape): of the validation part first, classes taking turns.

        Raises InputError when the task has fewer inputs than `count`.
        """
        if not 0 < count <= len(self.examples):
            raise InputError(
                f"count must lie in 1..{len(self.examples)} (the inputs of this task), got {count}; ask for fewer "
                "queries or give the task more data."
            )
        generator = torch.Generator().manual_seed(derive_seed(seed, "natural_queries"))
        classes, order = self._classes(), []
        for part in (self.validation_indices, self.training_indices):
            order.append(balanced_order(part, None if classes is None else classes[part], generator))
        return self.examples[torch.cat(order)[:count]].clone()

    def _fit(
        self,
        model: nn.Module,
        chosen: list[Tensor],
        options: TrainingOptions,
        *,
        seed: int,
        teacher: Teacher | None,
        truth: float,
        on_epoch: OnEpoch | None,
    ) -> None:
        inputs, targets = self.examples[self.training_indices], self.targets[self.training_indices]
        # The teacher answers once for all epochs, unless augmentation makes new inputs each time.
        taught = predict(teacher, inputs) if teacher is not None and self.augment is None else None
        device = device_of(model)
        inputs, targets = inputs.to(device), targets.to(device)
        taught = None if taught is None else taught.to(device)

        def batch_loss(indices: Tensor) -> Tensor:
            batch = inputs[indices] if self.augment is None else self.augment(inputs[indices])
            outputs = model(batch)
            if teacher is None:
                return self.loss(outputs, targets[indices])
            answers = taught[indices] if taught is not None else predict(teacher, batch).to(device)
            loss = self.teacher_loss(outputs, answers)
            return loss if truth == 0.0 else (1.0 - truth) * loss + truth * self.loss(outputs, targets[indices])

        fit(
            model,
            batch_loss,
            count=len(inputs),
            options=options,
            seed=seed,
            parameters=chosen,
            on_epoch=on_epoch,
        )

    def teacher_loss(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Return the scalar loss of a student's outputs against its teacher's."""
        raise NotImplementedError

    def _options_for(self, examples: Tensor) -> dict[str, Any]:
        """Return the shared options, with bounds stretched where examples of other origin lie outside."""
        lower, upper = torch.minimum(self.lower, examples.amin(dim=0)), torch.maximum(self.upper, examples.amax(dim=0))
        return {**self._shared_options(), "bounds": (lower, upper)}


class Classification(_Supervised):
    """Inputs with class labels; the model answers (n, classes) logits, log-probabilities or probabilities.

    `images`: numbers, any shape (n, ...), kept in their own units; `labels`: integers (n,) from 0. `validation`: the
    fraction held out for `metric` and `natural_queries` (None: 0.2). `bounds`: (lower, upper), numbers or arrays of
    one input (None: range of each feature). `levels`: number of values a feature may take, e.g. 256, or None.
    `augment`: a function batch -> batch for training; its draws from torch's global generator follow the seed.
    `classes`: number of classes where the labels do not name all. Raises InputError for data that cannot be used.
    """

    name = "classification"
    view = "logprob"
    metric_name = "accuracy"
    higher_is_better = True

    def __init__(
        self,
        images: Any,
        labels: Any,
        *,
        validation: float | None = None,
        bounds: tuple[Any, Any] | None = None,
        levels: int | None = None,
        epochs: float = 15,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        augment: Augment | None = None,
        classes: int | None = None,
    ) -> None:
        self.examples = as_float_tensor("images", images, minimum_dimensions=2)
        self.targets, self.outputs = as_label_tensor("labels", labels, classes)
        check_same_length("images", self.examples, "labels", self.targets)
        self.input_shape = tuple(self.examples.shape[1:])
        self.lower, self.upper = bounds_of("images", self.examples, bounds)
        self.levels, self.augment = checked_levels(levels), augment
        self.options = TrainingOptions(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay
        )
        self._split(validation)
        self.baseline = float(self.targets.bincount().max()) / len(self.targets)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy; `outputs` (n, classes), `targets` (n,) int64."""
        return functional.nll_loss(log_probabilities(outputs), targets)

    def teacher_loss(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Return the Kullback-Leibler divergence from the teacher at temperature 2 (Hinton et al. 2015, eq. 2-4)."""
        student = functional.log_softmax(log_probabilities(outputs) / TEMPERATURE, dim=1)
        taught = functional.log_softmax(log_probabilities(answers) / TEMPERATURE, dim=1)
        return TEMPERATURE**2 * functional.kl_div(student, taught, log_target=True, reduction="batchmean")

    def metric(self, model: nn.Module) -> float:
        """Return the accuracy on the validation part, in [0, 1]."""
        indices = self._measured()
        answers = predict(model, self.examples[indices]).flatten(1).argmax(dim=1)
        return float((answers == self.targets[indices]).float().mean())

    def _classes(self) -> Tensor:
        return self.targets

    def _described(self) -> dict[str, Any]:
        return {**super()._described(), "classes": self.outputs}

    def _rebuilt(self, examples: Tensor, targets: Tensor | None) -> Self:
        return type(self)(
            examples,
            targets,
            augment=self.augment,
            classes=self.outputs,
            **self._options_for(examples),
        )


class Regression(_Supervised):
    """Inputs with numbers to predict: `inputs` (n, ...), `targets` (n,) or (n, k); the model answers the same shape.

    The loss is the squared error in units of the targets' variance, so that the learning rate does not depend on
    their unit. `epochs`: None stands for 30, or as many as make 1,500 steps on little data. Other options as for
    Classification. Raises InputError for data that cannot be used.
    """

    name = "regression"
    metric_name = "mean absolute error"

    def __init__(
        self,
        inputs: Any,
        targets: Any,
        *,
        validation: float | None = None,
        bounds: tuple[Any, Any] | None = None,
        levels: int | None = None,
        epochs: float | None = None,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        augment: Augment | None = None,
    ) -> None:
        self.examples = as_float_tensor("inputs", inputs, minimum_dimensions=2)
        self.targets = as_float_tensor("targets", targets)
        check_same_length("inputs", self.examples, "targets", self.targets)
        self.input_shape = tuple(self.examples.shape[1:])
        self.outputs = math.prod(self.targets.shape[1:])
        self.lower, self.upper = bounds_of("inputs", self.examples, bounds)
        self.levels, self.augment = checked_levels(levels), augment
        self._split(validation)
        steps = batches_per_epoch(len(self.training_indices), batch_size)
        self.options = TrainingOptions(
            epochs=max(30, round(1500 / steps)) if epochs is None else epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
        )
        deviation = self.targets.flatten(1).std(dim=0) if self.targets.ndim > 1 else self.targets.std()
        self.target_scale = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        measured = self.targets[self._measured()]
        self.baseline = float((measured - self.targets[self.training_indices].median(dim=0).values).abs().mean())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error over the targets' variance; (n,) and (n, 1) are the same."""
        difference = outputs.reshape(len(targets), -1) - targets.reshape(len(targets), -1)
        return (difference / self.target_scale.to(difference.device)).square().mean()

    def teacher_loss(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Return the same loss against the teacher's answers."""
        return self.loss(outputs, answers)

    def metric(self, model: nn.Module) -> float:
        """Return the mean absolute error on the validation part, in the targets' unit."""
        indices = self._measured()
        answers = predict(model, self.examples[indices]).reshape(len(indices), -1)
        return float((answers - self.targets[indices].reshape(len(indices), -1)).abs().mean())

    def _rebuilt(self, examples: Tensor, targets: Tensor | None) -> Self:
        return type(self)(
            examples,
            targets,
            augment=self.augment,
            **self._options_for(examples),
        )


class Generation(ArrayTask):
    """Samples to imitate: the model turns a latent (n, *latent) into samples (n, ...) of the given shape.

    `samples`: numbers (n, ...); `latent`: size or shape of one latent, standard normal, within `bounds` (None: -3..3).
    `objective`: "autoencode" trains the model as the decoder of a variational autoencoder (Kingma & Welling 2014) whose
    encoder is made anew; "adversarial" trains it against a small discriminator (Goodfellow et al. 2014).
    With a teacher the model matches its samples, latent by latent. `metric` is the energy distance (Szekely & Rizzo
    2013) between generated samples and data over the mean distance within the data: 0 is perfect.
    """

    name = "generation"
    metric_name = "energy distance"

    def __init__(
        self,
        samples: Any,
        *,
        latent: int | tuple[int, ...],
        objective: str = "autoencode",
        validation: float | None = None,
        bounds: tuple[Any, Any] | None = None,
        levels: int | None = None,
        epochs: float = 10,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
    ) -> None:
        if objective not in OBJECTIVES:
            raise InputError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}.")
        self.examples = as_float_tensor("samples", samples, minimum_dimensions=2)
        if len(self.examples) < 2:
            raise InputError(f"samples must hold at least two examples, got {len(self.examples)}.")
        self.input_shape = _latent_shape(latent)
        self.outputs = math.prod(self.examples.shape[1:])
        self.lower, self.upper = checked_bounds((-3.0, 3.0) if bounds is None else bounds, self.input_shape)
        self.objective, self.levels = objective, checked_levels(levels)
        self.options = TrainingOptions(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay
        )
        self._latents: Tensor | None = None
        self._split(validation)
        mean = self.examples[self.training_indices].mean(dim=0, keepdim=True)
        self.baseline = energy_distance(mean.expand(8, *mean.shape[1:]), self._measured_samples())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error between samples over the data's variance."""
        difference = outputs.reshape(len(targets), -1) - targets.reshape(len(targets), -1)
        return difference.square().mean() / self.examples.var().clamp_min(1e-12)

    def metric(self, model: nn.Module) -> float:
        """Return the energy distance of 512 generated samples from the validation part (0 is perfect)."""
        return energy_distance(predict(model, self.natural_queries(512, seed=0)), self._measured_samples())

    def natural_queries(self, count: int, *, seed: int) -> Tensor:
        """Return `count` standard-normal latents, (count, *latent), clipped to the bounds."""
        if count < 1:
            raise InputError(f"count must be at least 1, got {count}.")
        generator = torch.Generator().manual_seed(derive_seed(seed, "natural_queries"))
        return self.draw(count, generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` latents, or as many of the fixed ones of `with_latents`."""
        if self._latents is not None:
            return self._latents[torch.randint(len(self._latents), (count,), generator=generator)]
        latents = torch.randn(count, *self.input_shape, generator=generator)
        return torch.minimum(torch.maximum(latents, self.lower), self.upper)

    def with_latents(self, latents: Tensor) -> Self:
        """Return this task with a fixed set of latents (m, *latent): all that a thief has asked about."""
        task = self._rebuilt(self.examples, None)
        task._latents = as_float_tensor("latents", latents, minimum_dimensions=2)
        return task

    def _fit(
        self,
        model: nn.Module,
        chosen: list[Tensor],
        options: TrainingOptions,
        *,
        seed: int,
        teacher: Teacher | None,
        truth: float,
        on_epoch: OnEpoch | None,
    ) -> None:
        training = GeneratorTraining(
            samples=self.examples[self.training_indices],
            draw=self.draw,
            loss=self.loss,
            options=options,
            seed=seed,
            on_epoch=on_epoch,
        )
        if teacher is None:
            training.run(self.objective, model, chosen)
        else:
            training.imitate(model, chosen, teacher, truth, self.objective)

    def _measured_samples(self) -> Tensor:
        return self.examples[self._measured()[:512]]

    def _described(self) -> dict[str, Any]:
        latents = None if self._latents is None else tensor_digest({"latents": self._latents})
        return {**super()._described(), "latent": self.input_shape, "objective": self.objective, "latents": latents}

    def _rebuilt(self, examples: Tensor, targets: Tensor | None) -> Self:
        return type(self)(
            examples,
            latent=self.input_shape,
            objective=self.objective,
            **self._shared_options(),
        )


def log_probabilities(outputs: Tensor) -> Tensor:
    """Return log-probabilities (n, classes) whether `outputs` are logits, log-probabilities or probabilities."""
    outputs = outputs.flatten(1)
    answers = outputs.detach()
    if bool((answers >= 0).all()) and bool(((answers.sum(dim=1) - 1.0).abs() < 1e-4).all()):
        return outputs.clamp_min(1e-8).log()
    return functional.log_softmax(outputs, dim=1)


def _latent_shape(latent: int | tuple[int, ...]) -> tuple[int, ...]:
    shape = (latent,) if isinstance(latent, int) else tuple(latent)
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(f"latent must be a size or a shape of positive whole numbers, got {latent!r}.")
    return shape
