"""Classification: inputs with class labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from metav import _core
from metav.models.adapters import ExpectedAnswer
from metav.models.read_models import class_log_probabilities
from metav.models.training import TrainingOptions
from metav.tasks.array_task import Augment
from metav.tasks.examples import labelled_examples
from metav.tasks.labels import as_class_labels
from metav.tasks.supervised import SupervisedTask

LEAST_ROOT = 1e-2
"""Least fourth root of a probability that counts, 1e-8: what a wrong and very sure answer counts is limited."""
TEMPERATURE = 2.0
"""Softmax temperature at which a student classifier matches its teacher."""


class Classification(SupervisedTask):
    """A task of inputs with class labels; the model answers (n, classes) logits, log-probabilities or probabilities.

    For two classes it may answer one number, (n, 1) or (n,): the logit or the chance of class 1.

    images: numbers, any shape (n, ...), kept in their own units; a table; or a Dataset or DataLoader of (image, label),
        which is drawn once. What takes more than METAV_MEMORY_LIMIT (2 GiB) as float32 lies in a file, see
        `docs/what_works.md`.
    labels: integers (n,) from 0, texts, categories, or one-hot rows; None where a data set holds them.
    validation: the fraction held out for `metric` and `natural_queries`, in [0, 0.9]; None for 0.2.
    bounds: (lower, upper), numbers or arrays of one input; None for the range of each feature, 0 to 255 for images of
        uint8.
    levels: number of values that a feature may take, e.g. 256; None for continuous ones, 256 for images of uint8.
    epochs, batch_size, learning_rate, weight_decay: see `TrainingOptions`.
    augment: a function from batch to batch for training; its draws from torch's global generator follow the seed.
    classes: number of classes where the labels do not name all, or their names in the order of the model's outputs;
        None for one more than the largest label, or the sorted texts.
    class_names: of the classes; empty where labels are numbers.

    Raises InputError for data that cannot be used.
    """

    identity_name = "Classification"
    name = "classification"
    view = "tempered"
    metric_name = "accuracy"
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
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        augment: Augment | None = None,
        classes: int | Sequence[str] | None = None,
    ) -> None:
        self.examples, given, bounds, levels = labelled_examples("images", images, "labels", labels, bounds, levels)
        self.targets, self.outputs, self.class_names = as_class_labels("labels", given, classes)
        self._keep(("images", "labels"), bounds=bounds, levels=levels, augment=augment, validation=validation)
        self.options = TrainingOptions(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay
        )
        self.baseline = float(self.targets.bincount().max()) / len(self.targets)

    @property
    def expected_answer(self) -> ExpectedAnswer:
        """One number per class; for two classes a single logit or chance of class 1 will do."""
        usual = super().expected_answer
        if self.outputs != 2:
            return usual
        return replace(usual, stands_for_two=lambda shape: math.prod(shape) == 1, text="(n, 2), or (n, 1)")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of outputs (n, classes) against targets (n,), int64."""
        return functional.nll_loss(log_probabilities(outputs), targets)

    def teacher_loss(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Return the Kullback-Leibler divergence from the teacher at temperature 2 (Hinton et al. 2015, eq. 2-4)."""
        student = functional.log_softmax(log_probabilities(outputs) / TEMPERATURE, dim=1)
        taught = functional.log_softmax(log_probabilities(answers) / TEMPERATURE, dim=1)
        return TEMPERATURE**2 * functional.kl_div(student, taught, log_target=True, reduction="batchmean")

    def _true_loss(self, outputs: Tensor, targets: Tensor, options: TrainingOptions) -> Tensor:
        """Return the loss with smoothed labels (Szegedy et al. 2016, section 7)."""
        loss = self.loss(outputs, targets)
        if options.smoothing == 0.0:
            return loss
        spread = -log_probabilities(outputs).mean()
        return (1.0 - options.smoothing) * loss + options.smoothing * spread

    def lack_of_fit(self, model: nn.Module) -> float:
        """Return the cross-entropy on inputs of the training part, above the least that there is, at one confidence.

        All models are brought to the mean confidence of the view `tempered` first, so that neither a temperature nor
        smoothed labels move it; 0 is for a model whose every answer is right and as sure as all others.
        """
        indices = self._fitted_indices()
        outputs = self._answers_at(model, indices).flatten(1).numpy()
        roots = _core.apply_view(np.ascontiguousarray(outputs[None]), "tempered")[0].astype(np.float64)
        probabilities = np.maximum(roots, LEAST_ROOT) ** 4
        told = np.take_along_axis(probabilities, self.targets[indices].numpy()[:, None], axis=1)
        return float(np.log(probabilities.max(axis=1).mean()) - np.log(told).mean())

    def metric(self, model: nn.Module) -> float:
        """Return the accuracy on the validation part, in [0, 1]."""
        indices = self._measured()
        answers = self._answers_at(model, indices).flatten(1).argmax(dim=1)
        return float((answers == self.targets[indices]).float().mean())

    def _classes(self) -> Tensor:
        return self.targets

    def _described(self) -> dict[str, Any]:
        names = {"class_names": self.class_names} if self.class_names else {}
        return {**super()._described(), "classes": self.outputs, **names}

    def _rebuilt(self, examples: Tensor, targets: Tensor | None) -> Self:
        return type(self)(
            examples,
            targets,
            augment=self.augment,
            classes=self.class_names or self.outputs,
            **self._options_for(examples),
        )


def log_probabilities(outputs: Tensor) -> Tensor:
    """Return log-probabilities (n, classes) whether `outputs` are logits, log-probabilities or probabilities."""
    return class_log_probabilities(outputs.flatten(1))
