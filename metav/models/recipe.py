"""One recipe: how one model is trained, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from metav.models.training import TrainingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnRecipe:
    """How one model is trained; what is None is as the task has it.

    epochs: > 0.
    part: share of the examples that it is trained on, in (0, 1].
    seed: decides which examples these are.
    trains_on_all: whether the task's validation part is trained on as well.
    learning_rate, batch_size, weight_decay, optimizer, schedule, smoothing, augmentation, until: see `TrainingOptions`.
    """

    epochs: float
    part: float = 1.0
    seed: int = 0
    trains_on_all: bool = False
    learning_rate: float | None = None
    batch_size: int | None = None
    weight_decay: float | None = None
    optimizer: str | None = None
    schedule: str | None = None
    smoothing: float = 0.0
    augmentation: str | None = None
    until: float | None = None

    def options(self, usual: TrainingOptions) -> TrainingOptions:
        """Return the training options of this recipe.

        usual: the task's, for all that is None.
        """
        return TrainingOptions(
            epochs=self.epochs,
            batch_size=usual.batch_size if self.batch_size is None else self.batch_size,
            learning_rate=usual.learning_rate if self.learning_rate is None else self.learning_rate,
            weight_decay=usual.weight_decay if self.weight_decay is None else self.weight_decay,
            optimizer=self.optimizer or usual.optimizer,
            schedule=self.schedule or usual.schedule,
            smoothing=self.smoothing,
            augmentation=self.augmentation,
            until=self.until,
            autocast=usual.autocast,
        )
