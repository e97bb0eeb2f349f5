"""skorch: a callback that makes the fingerprint in `on_train_end`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, Unpack

from torch import Tensor, nn

from metav.errors import InputError
from metav.integrations.registry import require_integration
from metav.integrations.releases import AGAIN, FingerprintOptions, Release, Releasing, check_recipe_choice
from metav.support.files import PathLike
from metav.tasks.base import Task
from metav.zoo.told_recipes import Recipe

require_integration("skorch")
from skorch.callbacks import Callback  # noqa: E402 (only where it is there)

from metav.integrations.skorch_recipe import SkorchRecipe  # noqa: E402


class FingerprintCallback(Releasing, Callback):  # type: ignore[misc]
    """Makes the fingerprint of what ships, once `net.fit` is done; the last one of a net's callbacks.

    path: the `.metav` file to write.
    task: what the module has learned, with its data.
    recipe: a function from a seed to a module trained likewise; "again" fits a clone of the net on the same data,
        without this callback; None draws recipes, and only near copies match.
    build: a function that returns the module before its training, for "again", where the net was given a module and
        not its class; None draws the weights of a copy anew. Give it where the training starts from pretrained weights.
    weights: a function from the net to a state dict that ships instead of the module's own, after epochs, too; None for
        its own, which are the best ones with `Checkpoint(load_best=True)` or `EarlyStopping(load_best=True)`, and after
        an epoch those of that epoch.
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
        recipe: Recipe | str | None = AGAIN,
        build: Callable[[], nn.Module] | None = None,
        weights: Callable[[Any], Mapping[str, Tensor]] | None = None,
        part: str | None = None,
        every: int | None = None,
        trackers: Sequence[Any] = (),
        **options: Unpack[FingerprintOptions],
    ) -> None:
        check_recipe_choice(recipe)
        self._release = Release(path, task, trackers=trackers, part=part, every=every, options=options)
        self._told, self._build, self._weights = recipe, build, weights
        self._recipe: Any = recipe

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return no parameters: none of them is searched over."""
        return {}

    def __sklearn_clone__(self) -> Self:
        return copy.copy(self)

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **given: Any) -> None:
        """Keep how the training begins, and look for what would fail after it."""
        if not self._release.is_wanted:
            return
        _check_order(net, self)
        if isinstance(self._told, str):
            if len(net.history):
                raise InputError(
                    "partial_fit goes on with a training, which cannot be repeated as a whole; use fit, or pass recipe="
                )
            self._recipe = SkorchRecipe.of(net, self, (X, y), self._build, self._weights, self._release.part)
        self._release.check(net.module_, self._recipe)

    def on_epoch_end(self, net: Any, **given: Any) -> None:
        """Make a fingerprint of an epoch, where `every` says so."""
        epoch = len(net.history)
        if self._release.is_due(epoch):
            self._release.make(net.module_, self._recipe, weights=self._chosen(net), epoch=epoch)

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **given: Any) -> None:
        """Make the fingerprint."""
        if self._release.is_wanted:
            self._release.make(net.module_, self._recipe, weights=self._chosen(net))

    def _chosen(self, net: Any) -> Mapping[str, Tensor] | None:
        return None if self._weights is None else self._weights(net)


def _check_order(net: Any, own: object) -> None:
    """Raise InputError where a callback that loads the best weights comes later."""
    entries = [callback for _, callback in net.callbacks_]
    for callback in entries[entries.index(own) :]:
        if getattr(callback, "load_best", False):
            raise InputError(
                f"{type(callback).__name__} loads the best weights after the fingerprint is made; put the "
                "FingerprintCallback last"
            )
