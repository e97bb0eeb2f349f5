"""Regression: inputs with numbers to predict."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from metav.models.staging import on_device
from metav.models.stored_tensors import joined_rows, row_slices, selected_rows
from metav.models.training import TrainingOptions, batches_per_epoch
from metav.tasks.array_task import Augment
from metav.tasks.arrays import as_float_tensor, median_of_rows
from metav.tasks.examples import labelled_examples
from metav.tasks.supervised import SupervisedTask


class Regression(SupervisedTask):
    """A task of inputs with numbers to predict; the model answers in the shape of the targets.

    inputs: numbers (n, ...), kept in their own units; a table; or a Dataset or DataLoader of (input, target).
    targets: numbers (n,), (n, k), or a value for each place, (n, channels, rows, columns); None where a data set holds
        them.
    epochs: None stands for 30, or as many as make 1,500 steps on little data.
    validation, bounds, levels, batch_size, learning_rate, weight_decay, augment: as for `Classification`.

    The loss is the squared error in units of the targets' variance, so that the learning rate does not depend on their
    unit.

    Raises InputError for data that cannot be used.
    """

    identity_name = "Regression"
    name = "regression"
    metric_name = "mean absolute error"

    def __init__(
        self,
        inputs: Any,
        targets: Any = None,
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
        self.examples, given, bounds, levels = labelled_examples("inputs", inputs, "targets", targets, bounds, levels)
        self.targets = as_float_tensor("targets", given)
        self.is_aligned = self.targets.ndim > 2
        self.outputs = math.prod(self.targets.shape[1:])
        self._keep(("inputs", "targets"), bounds=bounds, levels=levels, augment=augment, validation=validation)
        steps = batches_per_epoch(len(self.training_indices), batch_size)
        self.options = TrainingOptions(
            epochs=max(30, round(1500 / steps)) if epochs is None else epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
        )
        deviation = self.targets.flatten(1).std(dim=0) if self.targets.ndim > 1 else self.targets.std()
        self.target_scale = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        middle = median_of_rows(selected_rows(self.targets, self.training_indices))
        self.baseline = self._mean_error(lambda _: middle)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error over the targets' variance; (n,) and (n, 1) are the same."""
        difference = outputs.reshape(len(targets), -1) - targets.reshape(len(targets), -1)
        return (difference / on_device(self.target_scale, difference.device)).square().mean()

    def metric(self, model: nn.Module) -> float:
        """Return the mean absolute error on the validation part, in the targets' unit."""
        indices = self._measured()
        answers = self._answers_at(model, indices).reshape(len(indices), *self.targets.shape[1:])
        return self._mean_error(lambda rows: answers[rows])

    def _mean_error(self, answers: Callable[[slice], Tensor]) -> float:
        """Return the mean absolute error of answers, a function of places among the examples that are measured."""
        indices = self._measured()
        slices = row_slices(len(indices), self.targets[0].numel() * self.targets.element_size())
        return float(joined_rows((answers(rows) - self.targets[indices[rows]]).abs() for rows in slices).mean())

    def _rebuilt(self, examples: Tensor, targets: Tensor | None) -> Self:
        return type(self)(
            examples,
            targets,
            augment=self.augment,
            **self._options_for(examples),
        )
