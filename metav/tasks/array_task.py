"""Tasks on arrays, with their split into a training and a validation part."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from metav.errors import InputError
from metav.models.content_identity import UnidentifiedError, content_identity
from metav.models.identity import class_name, source_identity, tensor_digest
from metav.models.recipe import DrawnRecipe
from metav.models.running import predict
from metav.models.stored_tensors import selected_rows
from metav.models.training import TrainingOptions
from metav.support.randomness import derive_seed
from metav.tasks.arrays import balanced_order, split_indices
from metav.tasks.base import Task

Augment = Callable[[Tensor], Tensor]
"""From a batch of inputs to a changed batch of the same shape, drawn anew at each call."""


class ArrayTask(Task):
    """A task on arrays, divided into a training part and a validation part.

    examples: (n, ...), float32; a `StoredTensor` where they take more than `memory_limit`.
    options: how a model is trained.
    augment: a random change of each training batch; None for none.
    validation: fraction of the examples held out, in [0, 0.9]; None for 0.2.
    training_indices, validation_indices: which examples belong to which part, sorted.

    All tasks but generation have `targets` (n, ...) as well.
    """

    examples: Tensor
    options: TrainingOptions
    augment: Augment | None = None
    validation: float | None
    training_indices: Tensor
    validation_indices: Tensor
    _digest: str | None = None
    not_in_identity: ClassVar[tuple[str, ...]] = ("_digest",)

    def digest(self) -> str:
        """Return a SHA-256 over all data and options: two tasks with the same digest train the same models."""
        # computed once, as it reads all data: a task is never changed after it is made
        if self._digest is None:
            tensors = {"examples": self.examples, "lower": self.lower, "upper": self.upper}
            if self.targets is not None:
                tensors["targets"] = self.targets
            described = {"kind": class_name(type(self)), **self._described()}
            self._digest = tensor_digest(tensors, described)
        return self._digest

    def subset(self, indices: Any) -> Self:
        """Return a task of the same kind and bounds on the examples at `indices` (integers, any order).

        Raises InputError for other indices, or fewer than two.
        """
        chosen = torch.as_tensor(indices)
        if chosen.ndim != 1 or chosen.is_floating_point() or chosen.dtype == torch.bool or len(chosen) < 2:
            raise InputError(f"indices must be at least two integers, shape (n,), got {tuple(chosen.shape)}")
        if int(chosen.min()) < 0 or int(chosen.max()) >= len(self.examples):
            raise InputError(
                f"indices must lie in 0..{len(self.examples) - 1}, got {int(chosen.min())}..{int(chosen.max())}"
            )
        targets = None if self.targets is None else selected_rows(self.targets, chosen)
        return self._like(selected_rows(self.examples, chosen), targets)

    def with_data(self, examples: Tensor, targets: Tensor | None = None) -> Self:
        """Return a task of the same kind and options on other data (within wider bounds if needed)."""
        return self._like(examples, targets)

    def with_epochs(self, epochs: float) -> Self:
        """Return the same task, trained for another number of epochs."""
        return self._with_options(replace(self.options, epochs=epochs))

    def with_recipe(self, recipe: DrawnRecipe) -> Self:
        """Return the task that trains by a recipe; of a training loop of its own only length and data change."""
        part = super().with_recipe(recipe)
        if recipe.trains_on_all:
            part = copy.copy(part)
            part._digest, part.training_indices = None, torch.arange(len(part.examples))
        return part if self.has_own_loop else part._with_options(recipe.options(part.options))

    def with_autocast(self, dtype: str) -> Self:
        """Return the task that trains under autocast (`TrainingOptions.autocast`)."""
        if self.has_own_loop:
            return super().with_autocast(dtype)
        return self._with_options(replace(self.options, autocast=dtype))

    def validated_on(self, indices: Tensor) -> Self:
        """Return the same task with other examples in the validation part, to measure models on them."""
        other = copy.copy(self)
        other._digest, other.validation_indices = None, indices
        return other

    def bootstrap(self, seed: int, fraction: float = 0.5) -> Self:
        """Return a task on a random part of the examples, drawn without replacement, class by class.

        fraction: of the examples, in (0, 1].

        An example drawn twice could sit in the training part and in the validation part at once.

        Raises InputError for a fraction outside (0, 1].
        """
        if not 0.0 < fraction <= 1.0:
            raise InputError(f"fraction must lie in (0, 1], got {fraction}")
        generator = torch.Generator().manual_seed(derive_seed(seed, "bootstrap"))
        order, classes = balanced_order(torch.arange(len(self.examples)), None, generator), self._classes()
        groups = [order] if classes is None else [order[classes[order] == label] for label in torch.unique(classes)]
        parts = [group[: max(1, round(fraction * len(group)))] for group in groups]
        return self.subset(torch.cat(parts).sort().values)

    def _classes(self) -> Tensor | None:
        """Return the class of each example, (n,), or None where there are none."""
        return None

    def _split(self, validation: float | None) -> None:
        self.validation = validation
        self.training_indices, self.validation_indices = split_indices(len(self.examples), validation, self._classes())

    def _answers_at(self, model: nn.Module, indices: Tensor) -> Tensor:
        """Return the outputs (m, ...) of a model to the examples at `indices`."""
        own = self.adapted(model, looks_at_training=False) if isinstance(model, nn.Module) else model
        return predict(own, self.examples, rows=indices)

    def _measured(self) -> Tensor:
        return self.validation_indices if len(self.validation_indices) else self.training_indices

    def _described(self) -> dict[str, Any]:
        described = {"name": self.name, **self._shared_options(), "bounds": None, "augment": self._described_augment()}
        return {**described, **self.options.unusual()}

    def _described_augment(self) -> str | None:
        if self.augment is None:
            return None
        try:
            return content_identity(self.augment, "augment")
        except UnidentifiedError:  # a cache will say so
            return source_identity(self.augment)

    def _shared_options(self) -> dict[str, Any]:
        """Return the options that all constructors take, to make a task of the same kind."""
        options = self.options
        return {
            "validation": self.validation,
            "bounds": (self.lower, self.upper),
            "levels": self.levels,
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "learning_rate": options.learning_rate,
            "weight_decay": options.weight_decay,
        }

    def _with_options(self, options: TrainingOptions) -> Self:
        other = copy.copy(self)
        # the digest covers the options: the one kept by the original does not hold for this task
        other._digest, other.options = None, options
        return other

    def _like(self, examples: Tensor, targets: Tensor | None) -> Self:
        """Return a task of the same kind on other data, that trains in the same way."""
        task, unusual = self._rebuilt(examples, targets), self.options.unusual()
        return task._with_options(replace(task.options, **unusual)) if unusual else task

    def _rebuilt(self, examples: Tensor, targets: Tensor | None) -> Self:
        raise NotImplementedError
