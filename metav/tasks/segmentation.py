"""Segmentation: inputs with a class for each pixel, or for each step of a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.models.adapters import ExpectedAnswer
from metav.models.read_models import place_log_probabilities
from metav.models.training import TrainingOptions
from metav.tasks.array_task import Augment
from metav.tasks.examples import labelled_examples
from metav.tasks.labels import as_label_map
from metav.tasks.places_task import PlacesTask
from metav.verifiers.places import grid_places

TEMPERATURE = 2.0
"""Temperature at which a student matches its teacher, as for one label."""
SURE = 50.0
"""Logit of a class that is known."""
MEASURED_AT_ONCE = 64
"""Inputs whose scores are in memory together."""
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Segmentation(PlacesTask):
    """A task of inputs with a class for each place; the model answers (n, classes, ...), its places after the classes.

    images: numbers, any shape (n, ...), kept in their own units; or a Dataset or DataLoader of (image, labels).
    labels: whole numbers from 0, (n, rows, columns) or (n, steps).
    validation, bounds, levels, epochs, batch_size, learning_rate, weight_decay, augment: as for `Classification`; what
        moves pixels is no `augment` here, as labels stay where they are.
    classes: their number, or their names in the order of the model's outputs; None for one more than the largest label.

    Models may answer logits or probabilities, at another resolution than that of the labels (they are enlarged), with
    the classes behind the places, and for two classes one number per place, a logit or the chance of class 1. The loss
    is the mean cross-entropy over places, the metric the mean intersection over union of the classes that occur, the
    teacher's loss the divergence of each place at temperature 2. A fingerprint reads up to 64 places, on an even grid.

    Raises InputError for data that cannot be used.
    """

    identity_name = "Segmentation"
    name = "segmentation"
    metric_name = "mean IoU"
    is_aligned = True
    higher_is_better = True

    def __init__(
        self,
        images: Any,
        labels: Any = None,
        *,
        validation: float | None = None,
        bounds: tuple[Any, Any] | None = None,
        levels: int | None = None,
        epochs: float = 15,
        batch_size: int = 16,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        augment: Augment | None = None,
        classes: int | Sequence[str] | None = None,
    ) -> None:
        self.examples, given, bounds, levels = labelled_examples("images", images, "labels", labels, bounds, levels)
        self.targets, count, self.class_names = as_label_map("labels", given, classes)
        self.places = grid_places(count, self.targets.shape[1:])
        self.outputs = count * self.places.count
        self._keep(("images", "labels"), bounds=bounds, levels=levels, augment=augment, validation=validation)
        self.options = TrainingOptions(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay
        )
        usual = int(self.targets.flatten().bincount().argmax())
        measured = (self.targets[part] for part in torch.split(self._measured(), MEASURED_AT_ONCE))
        self.baseline = _mean_iou(((torch.full_like(truth, usual), truth) for truth in measured), count)

    @property
    def classes(self) -> int:
        """Number of classes of a place."""
        return self.places.classes

    @property
    def expected_answer(self) -> ExpectedAnswer:
        """Scores (classes, ...) at any resolution; for two classes one number per place will do."""
        classes, axes = self.classes, len(self.places.shape)

        def is_single(shape: tuple[int, ...]) -> bool:
            return classes == 2 and (len(shape) == axes or (len(shape) == axes + 1 and shape[0] == 1))

        return replace(
            super().expected_answer,
            fits=lambda shape: len(shape) == axes + 1 and shape[0] == classes,
            stands_for_two=is_single,
            classes_last=lambda shape: shape == (*self.places.shape, classes),
            text=f"(n, {', '.join(map(str, (classes, *self.places.shape)))})",
        )

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """Return log-probabilities (n, classes, all places) of outputs (n, classes, ...), enlarged where needed."""
        if tuple(outputs.shape[2:]) != self.places.shape:
            mode = _MODES.get(outputs.ndim - 2, "nearest")
            options = {} if mode == "nearest" else {"align_corners": False}
            outputs = functional.interpolate(outputs, size=self.places.shape, mode=mode, **options)
        return place_log_probabilities(outputs).flatten(2)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy over all places of outputs (n, classes, ...) against targets (n, ...)."""
        return functional.nll_loss(self.log_probabilities(outputs), targets.flatten(1))

    def teacher_loss(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Return the divergence of each place from the teacher's at temperature 2 (Hinton et al. 2015), their mean."""
        student = functional.log_softmax(self.log_probabilities(outputs) / TEMPERATURE, dim=1)
        taught = functional.log_softmax(self.log_probabilities(answers) / TEMPERATURE, dim=1)
        divergence = functional.kl_div(student, taught, log_target=True, reduction="sum")
        return TEMPERATURE**2 * divergence / (len(outputs) * self.places.count)

    def labels_alone(self, answers: Tensor) -> Tensor:
        """Return a teacher's answers (n, classes, ...), of which nothing but the labels is left, as logits."""
        labels = answers.argmax(dim=1)
        return SURE * functional.one_hot(labels, answers.shape[1]).movedim(-1, 1).float()

    def metric(self, model: nn.Module) -> float:
        """Return the mean intersection over union on the validation part, over the classes that occur, in [0, 1]."""
        # in parts: the scores of all places of all images are many numbers
        found = (
            (self.log_probabilities(self._answers_at(model, part)).argmax(dim=1), self.targets[part])
            for part in torch.split(self._measured(), MEASURED_AT_ONCE)
        )
        return _mean_iou(found, self.classes)

    def _described(self) -> dict[str, Any]:
        return {**super()._described(), "classes": self.classes}

    def _rebuilt(self, examples: Tensor, targets: Tensor | None) -> Self:
        return type(self)(
            examples,
            targets,
            augment=self.augment,
            classes=self.class_names or self.classes,
            **self._options_for(examples),
        )


def _mean_iou(pairs: Iterable[tuple[Tensor, Tensor]], classes: int) -> float:
    """Return the mean intersection over union of the classes that occur in the targets.

    pairs: of classes found and targets, whole numbers of as many places each.
    """
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    for found, targets in pairs:
        places = targets.flatten() * classes + found.flatten()
        counts += places.bincount(minlength=classes**2).reshape(classes, classes)
    both = counts.diagonal().float()
    union = (counts.sum(dim=0) + counts.sum(dim=1)).float() - both
    there = counts.sum(dim=1) > 0
    return float((both[there] / union[there]).mean())
