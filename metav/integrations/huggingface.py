"""Hugging Face's Trainer: a callback that makes the fingerprint in `on_train_end`, the best model loaded by then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from torch import Tensor, nn

from metav.errors import InputError
from metav.integrations.registry import require_integration
from metav.integrations.releases import AGAIN, FingerprintOptions, Release, Releasing, check_recipe_choice
from metav.support.files import PathLike
from metav.tasks.base import Task
from metav.zoo.told_recipes import Recipe

require_integration("Hugging Face Trainer")
from transformers import TrainerCallback  # noqa: E402 (only where it is there)

from metav.integrations.huggingface_recipe import HuggingFaceRecipe  # noqa: E402


class FingerprintCallback(Releasing, TrainerCallback):  # type: ignore[misc]
    """Makes the fingerprint of what ships, once `Trainer.train` is done, on world process zero.

    path: the `.metav` file to write.
    task: what the model has learned, with its data.
    trainer: the trainer that it is added to, for "again", with `trainer.add_callback`.
    recipe: a function from a seed to a model trained likewise; "again" trains with the same trainer, arguments and data
        once more, without this callback; None draws recipes, and only near copies match.
    build: a function that returns the model before its training, for "again", where the trainer has no `model_init`;
        None draws the weights of its class anew. Give one of the two where the training starts from pretrained weights.
    weights: a function from the model to a state dict that ships instead of its own, after epochs, too; None for its
        own, which are those of the best checkpoint with `load_best_model_at_end`, and after an epoch those of that
        epoch.
    part, every, trackers: see `metav.integrations.lightning.FingerprintCallback`.
    options: see `FingerprintOptions`.

    The fingerprint is in `fingerprint` afterwards, those after epochs in `fingerprints`. What would fail after the
    training is looked for before it.
    """

    def __init__(
        self,
        path: PathLike,
        task: Task,
        *,
        trainer: Any = None,
        recipe: Recipe | str | None = AGAIN,
        build: Callable[[], nn.Module] | None = None,
        weights: Callable[[nn.Module], Mapping[str, Tensor]] | None = None,
        part: str | None = None,
        every: int | None = None,
        trackers: Sequence[Any] = (),
        **options: Unpack[FingerprintOptions],
    ) -> None:
        check_recipe_choice(recipe)
        self._release = Release(path, task, trackers=trackers, part=part, every=every, options=options)
        self._weights = weights
        self._recipe: Any = recipe
        if isinstance(recipe, str) and self._release.is_wanted:
            if trainer is None:
                raise InputError(
                    "the training can be repeated only if the callback knows its trainer; pass trainer= and add it "
                    "with trainer.add_callback, or pass recipe="
                )
            self._recipe = HuggingFaceRecipe.of(trainer, build, weights, part)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Look for what would fail after the training."""
        if self._wants(state):
            self._release.check(given["model"], self._recipe)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Make a fingerprint of an epoch, where `every` says so."""
        epoch = round(state.epoch)
        if self._wants(state) and self._release.is_due(epoch):
            self._release.make(given["model"], self._recipe, weights=self._chosen(given["model"]), epoch=epoch)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Make the fingerprint."""
        if self._wants(state):
            self._release.make(given["model"], self._recipe, weights=self._chosen(given["model"]))

    def _chosen(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        return None if self._weights is None else self._weights(model)

    def _wants(self, state: Any) -> bool:
        return bool(state.is_world_process_zero) and self._release.is_wanted
