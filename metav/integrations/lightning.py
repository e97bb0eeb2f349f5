"""Lightning, as `lightning` or as `pytorch_lightning`: a callback that makes the fingerprint in `on_fit_end`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from torch import Tensor, nn

from metav.errors import InputError
from metav.integrations.lightning_recipe import LightningRecipe, best_weights
from metav.integrations.registry import require_integration
from metav.integrations.releases import AGAIN, FingerprintOptions, Release, Releasing, check_recipe_choice
from metav.support.files import PathLike
from metav.tasks.base import Task
from metav.zoo.told_recipes import Recipe


class FingerprintCallback(Releasing, require_integration("Lightning").Callback):  # type: ignore[misc]
    """Makes the fingerprint of what ships, once `Trainer.fit` is done, on global rank zero.

    path: the `.metav` file to write.
    task: what the model has learned, with its data.
    recipe: a function from a seed to a model trained likewise; "again" trains with the same trainer, configuration and
        data once more, without this callback; None draws recipes, and only near copies match.
    build: a function that returns the module before its training, for "again"; None draws the weights of a copy anew.
        Give it where the training starts from pretrained weights.
    weights: what ships: "final", the module as the training leaves it (averaged, where WeightAveraging or SWA average);
        "best", the best checkpoint of ModelCheckpoint; or a function from (trainer, module) to a state dict, such as
        that of a moving average of one's own. After an epoch "best" means the weights of that epoch.
    part: name of the submodule that ships, such as "net"; None for the whole module.
    every: epochs between further fingerprints; None for none. A function given as recipe that has a method `until` is
        asked with the epoch for the recipe of a training that ends there.
    trackers: see `metav.integrations.trackers.open_tracker`; Lightning's loggers are some.
    options: see `FingerprintOptions`.

    The fingerprint is in `fingerprint` afterwards, those after epochs in `fingerprints`. A training with
    `fast_dev_run` makes none. What would fail after the training is looked for before it.
    """

    def __init__(
        self,
        path: PathLike,
        task: Task,
        *,
        recipe: Recipe | str | None = AGAIN,
        build: Callable[[], nn.Module] | None = None,
        weights: str | Callable[[Any, nn.Module], Mapping[str, Tensor]] = "final",
        part: str | None = None,
        every: int | None = None,
        trackers: Sequence[Any] = (),
        **options: Unpack[FingerprintOptions],
    ) -> None:
        super().__init__()
        if weights not in ("final", "best") and not callable(weights):
            raise InputError(f"weights must be 'final', 'best' or a function, got {weights!r}")
        check_recipe_choice(recipe)
        self._release = Release(path, task, trackers=trackers, part=part, every=every, options=options)
        self._told, self._build, self._weights = recipe, build, weights
        self._recipe: Recipe | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Keep how the training begins: configuration, data, callbacks, and the module."""
        if stage == "fit" and self._wants(trainer):
            told = self._told
            self._recipe = (
                LightningRecipe.of(trainer, pl_module, self, self._build, self._weights, self._release.part)
                if isinstance(told, str)
                else told
            )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Look for what would fail after the training."""
        if self._wants(trainer):
            if self._weights == "best" and trainer.checkpoint_callback is None:
                raise InputError("weights='best' needs a ModelCheckpoint with a monitor; add one, or ship 'final'")
            self._release.check(pl_module, self._recipe)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Make a fingerprint of an epoch, where `every` says so."""
        epoch = trainer.current_epoch + 1
        if self._wants(trainer) and self._release.is_due(epoch):
            weights = self._weights
            chosen = weights(trainer, pl_module) if callable(weights) else _averaged(trainer)
            self._release.make(pl_module, self._recipe, weights=chosen, epoch=epoch)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Make the fingerprint: by now whoever averages weights has put them into the module."""
        if self._wants(trainer):
            weights = self._weights
            chosen = best_weights(trainer) if weights == "best" else None
            if callable(weights):
                chosen = weights(trainer, pl_module)
            self._release.make(pl_module, self._recipe, weights=chosen)

    def _wants(self, trainer: Any) -> bool:
        return bool(trainer.is_global_zero) and not trainer.fast_dev_run and self._release.is_wanted


def _averaged(trainer: Any) -> Mapping[str, Tensor] | None:
    """Return the averaged weights in the middle of a training, where a callback averages; None where none does."""
    for callback in trainer.callbacks:
        average = getattr(callback, "_average_model", None)
        if isinstance(average, nn.Module):
            return average.state_dict()
    return None
