"""Multi-label classification: inputs with any number of labels each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.errors import InputError
from metav.models.adapters import ExpectedAnswer
from metav.models.training import TrainingOptions
from metav.tasks.array_task import Augment
from metav.tasks.examples import labelled_examples
from metav.tasks.labels import as_multi_hot
from metav.tasks.places_task import PlacesTask
from metav.verifiers.places import MOST_LABELS, grid_places

TEMPERATURE = 2.0
"""Temperature at which a student matches its teacher, as for one label."""
SURE = 50.0
"""Logit of a label that is known."""


class MultiLabelClassification(PlacesTask):
    """A task of inputs with several labels; the model answers (n, labels) logits, or chances in [0, 1].

    inputs: numbers, any shape (n, ...), kept in their own units; or a Dataset or DataLoader of (input, labels).
    labels: 0 or 1, (n, labels) with at least two columns; of a table with named columns the names are kept.
    validation, bounds, levels, epochs, batch_size, learning_rate, weight_decay, augment: as for `Classification`.
    label_names: instead of those of the columns.

    The loss is the mean binary cross-entropy, the metric the macro F1 score at a chance of 0.5, the teacher's loss the
    divergence of each label at temperature 2.

    Raises InputError for data that cannot be used.
    """

    identity_name = "MultiLabelClassification"
    name = "multi-label"
    metric_name = "macro F1"
    higher_is_better = True

    def __init__(
        self,
        inputs: Any,
        labels: Any = None,
        *,
        validation: float | None = None,
        bounds: tuple[Any, Any] | None = None,
        levels: int | None = None,
        epochs: float = 15,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        augment: Augment | None = None,
        label_names: Any = None,
    ) -> None:
        self.examples, given, bounds, levels = labelled_examples("inputs", inputs, "labels", labels, bounds, levels)
        self.targets, self.class_names = as_multi_hot("labels", given, label_names)
        self.outputs = int(self.targets.shape[1])
        self.places = grid_places(2, (self.outputs,), MOST_LABELS)
        self._keep(("inputs", "labels"), bounds=bounds, levels=levels, augment=augment, validation=validation)
        self.options = TrainingOptions(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay
        )
        always = torch.ones_like(self.targets[self._measured()])
        self.baseline = max(_macro_f1(always, self.targets[self._measured()]), 0.0)

    @property
    def expected_answer(self) -> ExpectedAnswer:
        """One log-odds, or chance, per label."""
        return replace(super().expected_answer, are_odds=True)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean binary cross-entropy of log-odds (n, labels) against targets (n, labels)."""
        return functional.binary_cross_entropy_with_logits(outputs.flatten(1), targets.to(outputs.dtype))

    def teacher_loss(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Return the divergence of each label's chance from the teacher's, at temperature 2 (Hinton et al. 2015)."""
        student, taught = outputs.flatten(1) / TEMPERATURE, answers.flatten(1) / TEMPERATURE
        crossed = functional.binary_cross_entropy_with_logits(student, taught.sigmoid())
        own = functional.binary_cross_entropy_with_logits(taught, taught.sigmoid())
        return TEMPERATURE**2 * (crossed - own)

    def labels_alone(self, answers: Tensor) -> Tensor:
        """Return a teacher's answers (n, labels), of which nothing but the labels is left, as log-odds."""
        return torch.where(answers > 0, SURE, -SURE)

    def metric(self, model: nn.Module) -> float:
        """Return the macro F1 score on the validation part, in [0, 1]: the mean over labels that occur there."""
        indices = self._measured()
        answers = self._answers_at(model, indices).flatten(1)
        return _macro_f1((answers > 0).long(), self.targets[indices])

    def _rebuilt(self, examples: Tensor, targets: Tensor | None) -> Self:
        if targets is None:
            raise InputError("a multi-label task needs the labels of other data, got none")
        return type(self)(
            examples, targets, augment=self.augment, label_names=self.class_names, **self._options_for(examples)
        )


def _macro_f1(found: Tensor, targets: Tensor) -> float:
    """Return the mean F1 score over labels that occur, 0 where none does; found, targets: 0 or 1, (n, labels)."""
    right = (found * targets).sum(dim=0).float()
    scores = 2.0 * right / (found.sum(dim=0) + targets.sum(dim=0)).clamp_min(1)
    there = targets.sum(dim=0) > 0
    return float(scores[there].mean()) if bool(there.any()) else 0.0
