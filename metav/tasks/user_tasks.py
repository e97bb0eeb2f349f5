"""Tasks of the user's own: an object is checked once, as a whole, and offers all methods of `Task` from then on."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from metav.errors import InputError
from metav.models.identity import source_identity
from metav.models.running import Teacher
from metav.models.training import OnEpoch
from metav.tasks.base import Task, options_taken

REQUIRED_METHODS = ("loss", "train", "metric", "natural_queries", "digest", "bootstrap")
REQUIRED_VALUES = ("name", "input_shape", "lower", "upper")
OPTIONAL_VALUES = (
    *("view", "higher_is_better", "outputs", "levels", "baseline", "options"),
    *("examples", "targets", "validation_indices"),
)


def as_task(given: Any, *, name: str = "task") -> Task:
    """Return a task as it is, and any other object with the same methods as a task that calls them.

    given: a Task, or an object with REQUIRED_METHODS and REQUIRED_VALUES; whatever else of `Task` it has is used.
    name: of the argument, for the message.

    Raises InputError that lists all that is missing.
    """
    _check(given, name)
    if isinstance(given, Task):
        return given
    return UserTask(given)


def _check(given: Any, name: str) -> None:
    missing = [f"{method}()" for method in REQUIRED_METHODS if not callable(getattr(given, method, None))]
    missing += [value for value in REQUIRED_VALUES if getattr(given, value, None) is None]
    if missing:
        raise InputError(
            f"{name} of class {type(given).__name__} lacks {', '.join(missing)}; use metav.Classification, "
            "Regression or Generation, subclass metav.Task, or give it what it lacks"
        )


class UserTask(Task):
    """A task that calls an object of the user's own; for what the object lacks it has the defaults of `Task`.

    given: the user's object.
    """

    def __init__(self, given: Any) -> None:
        self.given = given
        self._epochs: float | None = None
        self.train_options = options_taken(given.train)
        self.takes_other_data = callable(getattr(given, "with_data", None))
        self.metric_name = str(getattr(given, "metric_name", "metric"))
        for name in OPTIONAL_VALUES:
            if hasattr(given, name):
                setattr(self, name, getattr(given, name))
        self.name, self.input_shape = str(given.name), tuple(given.input_shape)
        self.lower, self.upper = torch.as_tensor(given.lower), torch.as_tensor(given.upper)

    def _in_words(self) -> Iterator[str]:
        yield f"of class {type(self.given).__name__}"
        yield from super()._in_words()

    @property
    def epochs(self) -> float:
        """Epochs of one training from scratch."""
        return float(getattr(self.given, "epochs", super().epochs)) if self._epochs is None else self._epochs

    @property
    def states_epochs(self) -> bool:
        """Whether the user's object says how many epochs one training takes."""
        return self._epochs is not None or hasattr(self.given, "epochs")

    def with_epochs(self, epochs: float) -> Self:
        """Return the task whose loop is asked for another number of epochs."""
        other = copy.copy(self)
        other._epochs = epochs
        return other

    def identity(self) -> str:
        """Return a text that changes with the code of the user's class."""
        return source_identity(type(self.given))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the user's loss."""
        result: Tensor = self.given.loss(outputs, targets)
        return result

    def teacher_loss(self, outputs: Tensor, answers: Tensor) -> Tensor:
        """Return the user's loss against a teacher's answers; the ordinary loss where the user gives no other."""
        result: Tensor = getattr(self.given, "teacher_loss", self.given.loss)(outputs, answers)
        return result

    def metric(self, model: nn.Module) -> float:
        """Return the user's metric of a model."""
        return float(self.given.metric(model))

    def natural_queries(self, count: int, *, seed: int) -> Tensor:
        """Return the user's natural inputs."""
        inputs: Tensor = self.given.natural_queries(count, seed=seed)
        return inputs

    def digest(self) -> str:
        """Return the user's digest."""
        digest = str(self.given.digest())
        return digest if self._epochs is None else f"{digest} epochs {self._epochs!r}"

    def bootstrap(self, seed: int, fraction: float = 0.5) -> Any:
        """Return the user's task on a part of its examples."""
        return as_task(self.given.bootstrap(seed, fraction))

    def subset(self, indices: Any) -> Any:
        """Return the user's task on some of its examples."""
        return as_task(self.given.subset(indices))

    def with_data(self, examples: Tensor, targets: Tensor | None = None) -> Any:
        """Return the user's task on other data."""
        return as_task(self.given.with_data(examples, targets))

    def check_model(self, model: nn.Module) -> None:
        """Check a model by the user's method, else as every task does."""
        if callable(getattr(self.given, "check_model", None)):
            self.given.check_model(model)
        else:
            super().check_model(model)

    def train(
        self,
        model: nn.Module,
        *,
        seed: int,
        teacher: Teacher | None = None,
        parameters: Iterable[Tensor] | None = None,
        epochs: float | None = None,
        on_epoch: OnEpoch | None = None,
        truth: float = 0.0,
    ) -> nn.Module:
        """Train with the user's loop, which is given only those options that are not None.

        For the arguments see `Task.train`.
        """
        epochs = self._epochs if epochs is None else epochs
        options = {"teacher": teacher, "parameters": parameters, "epochs": epochs, "on_epoch": on_epoch}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if truth:
            given["truth"] = truth
        trained: nn.Module = self.given.train(model, seed=seed, **given)
        return trained
