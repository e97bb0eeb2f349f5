"""What tasks of inputs with targets have in common: natural queries, training on targets or on a teacher's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metav.errors import InputError
from metav.models.adapters import one_tensor
from metav.models.running import Teacher, device_of, predict
from metav.models.stored_tensors import places_on, rows_on
from metav.models.training import OnEpoch, TrainingOptions, fit, full_precision, trained_pass
from metav.support.randomness import derive_seed
from metav.tasks.array_task import ArrayTask, Augment
from metav.tasks.arrays import balanced_order, bounds_of, check_same_length, checked_levels, evenly
from metav.tasks.augmentations import augmentation_of

MOST_FITTED = 400
"""Inputs that the lack of fit is measured on, at most: after each epoch, so that it costs little beside the epoch."""


class SupervisedTask(ArrayTask):
    """A task of inputs with targets (n, ...)."""

    targets: Tensor

    def _keep(
        self,
        names: tuple[str, str],
        *,
        bounds: tuple[Any, Any] | None,
        levels: int | None,
        augment: Augment | None,
        validation: float | None,
    ) -> None:
        """Check examples and targets, which are there, and set what all tasks with targets take from them.

        names: of the arguments that gave the two.
        """
        check_same_length(names[0], self.examples, names[1], self.targets)
        self.input_shape = tuple(self.examples.shape[1:])
        self.lower, self.upper = bounds_of(names[0], self.examples, bounds)
        self.levels, self.augment = checked_levels(levels), augment
        self._split(validation)

    def natural_queries(self, count: int, *, seed: int) -> Tensor:
        """Return `count` different inputs, (count, *input_shape): of the validation part first, classes taking turns.

        Raises InputError when the task has fewer inputs than `count`.
        """
        if not 0 < count <= len(self.examples):
            raise InputError(
                f"count must lie in 1..{len(self.examples)} (the inputs of this task), got {count}; ask for fewer "
                "queries or give the task more data"
            )
        generator = torch.Generator().manual_seed(derive_seed(seed, "natural_queries"))
        classes, order = self._classes(), []
        for part in (self.validation_indices, self.training_indices):
            order.append(balanced_order(part, None if classes is None else classes[part], generator))
        return self.examples[torch.cat(order)[:count]]

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
        every, device, expected = self.training_indices, device_of(model), self.expected_answer
        augment = augmentation_of(options.augmentation, self.examples, every, self.augment)
        inputs, targets = rows_on(device, self.examples, every), rows_on(device, self.targets, every)
        # The teacher answers once for all epochs, unless augmentation makes new inputs each time.
        taught = None
        if teacher is not None and augment is None:
            taught = rows_on(device, predict(teacher, self.examples, rows=every), torch.arange(len(every)))

        def batch_loss(indices: Tensor) -> Tensor:
            batch = inputs(indices) if augment is None else augment(inputs(indices))
            outputs = full_precision(one_tensor(trained_pass(model, batch, options), expected, len(batch)), options)
            if teacher is None:
                return self._true_loss(outputs, targets(indices), options)
            answers = taught(indices) if taught is not None else predict(teacher, batch, device=device)
            loss = self.teacher_loss(outputs, answers)
            if truth == 0.0:
                return loss
            return (1.0 - truth) * loss + truth * self._true_loss(outputs, targets(indices), options)

        fit(
            model,
            batch_loss,
            count=len(every),
            options=options,
            seed=seed,
            parameters=chosen,
            on_epoch=on_epoch,
            is_enough=None if teacher is not None else self._end(model, options),
            places=places_on(device, self.examples, self.targets),
        )

    def lack_of_fit(self, model: nn.Module) -> float:
        """Return how badly a model answers what it is trained on, from 0: the loss on inputs of the training part."""
        indices = self._fitted_indices()
        return float(self.loss(self._answers_at(model, indices), self.targets[indices]))

    def _fitted_indices(self) -> Tensor:
        return evenly(self.training_indices, self.measured_at_once(MOST_FITTED))

    def _end(self, model: nn.Module, options: TrainingOptions) -> Callable[[], bool] | None:
        until = options.until
        return None if until is None else lambda: self.lack_of_fit(model) <= until

    def _true_loss(self, outputs: Tensor, targets: Tensor, options: TrainingOptions) -> Tensor:
        """Return the loss against the true targets, as it is minimised in training."""
        return self.loss(outputs, targets)

    def _options_for(self, examples: Tensor) -> dict[str, Any]:
        """Return the shared options, with bounds widened where examples of another origin lie outside."""
        lower, upper = torch.minimum(self.lower, examples.amin(dim=0)), torch.maximum(self.upper, examples.amax(dim=0))
        return {**self._shared_options(), "bounds": (lower, upper)}
