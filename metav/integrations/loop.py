"""Training loops of one's own: a context around the loop makes the fingerprint of what the loop says that it ships."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

from torch import nn

from metav.errors import InputError
from metav.integrations.releases import FingerprintOptions, Release, Releasing, Weights
from metav.integrations.shipped_weights import shipped
from metav.support.files import PathLike
from metav.tasks.base import Task
from metav.zoo.told_recipes import Recipe


class LoopRelease(Releasing):
    """What a loop tells of its training; see `fingerprinting`.

    release: makes the fingerprint.
    recipe: how it is trained, as a function from a seed.
    unwrap: takes off a model what a framework put around it.
    """

    def __init__(
        self, release: Release, recipe: Recipe | None, unwrap: Callable[[nn.Module], nn.Module] | None = None
    ) -> None:
        self._release, self._recipe = release, recipe
        self._unwrap = unwrap or (lambda model: model)
        self._shipped: nn.Module | None = None
        self._best: float | None = None

    def ship(self, model: nn.Module, weights: Weights | None = None) -> None:
        """Say what ships: the model as it is now, or with other weights of it; the last call counts.

        model: wrapped or not; a copy is kept, so that what is done to it later does not count.
        weights: a state dict that ships instead, such as a moving average.

        Raises ModelError for what cannot be copied.
        """
        if self._release.is_wanted:
            self._shipped = shipped(self._unwrap(model), weights, part=self._release.part)

    def ship_if_best(
        self, model: nn.Module, metric: float, *, higher_is_better: bool, weights: Weights | None = None
    ) -> bool:
        """Say that a model ships if it is better than all before it, and return whether it is.

        metric: how good it is; a NaN is never the best.
        """
        best = metric == metric and (
            self._best is None or (metric > self._best if higher_is_better else metric < self._best)
        )
        if best:
            self._best = metric
            self.ship(model, weights)
        return best

    def epoch(
        self, number: int, model: nn.Module, recipe: Recipe | None = None, *, weights: Weights | None = None
    ) -> None:
        """Make a fingerprint after an epoch, where `every` says so.

        number: of the epoch, from 1.
        recipe: how a model is trained for so many epochs; None where recipes are to be drawn.
        weights: a state dict that ships instead of the model's own, such as a moving average.
        """
        if self._release.is_due(number):
            self._release.make(self._unwrap(model), recipe, weights=weights, epoch=number)

    def finish(self) -> None:
        """Make the fingerprint of what ships; InputError where nothing does."""
        if not self._release.is_wanted:
            return
        if self._shipped is None:
            raise InputError("the loop has ended, and nothing ships; call release.ship(model) in it")
        self._release.make_of(self._shipped, self._recipe)


@contextmanager
def fingerprinting(
    path: PathLike,
    task: Task,
    *,
    recipe: Recipe | None = None,
    trackers: Sequence[Any] = (),
    part: str | None = None,
    every: int | None = None,
    **options: Unpack[FingerprintOptions],
) -> Iterator[LoopRelease]:
    """Run a training loop, then make the fingerprint of what it ships and write it to a file.

    path, task, trackers, part, every: see `metav.integrations.releases.Release`.
    recipe: from a seed to a model trained like the one that ships, usually the function around this context: inside a
        recipe the context does nothing. None: recipes are drawn, and only near copies match.
    options: see `FingerprintOptions`.

    Where several processes train together, the first one makes it. The loop gives the same weights with and without
    this context, and the random state goes on as if it were not there. A loop that fails ships nothing.

    Raises InputError where the loop ships nothing, and what `metav.fingerprint` does.
    """
    release = Release(path, task, trackers=trackers, part=part, every=every, options=options)
    with watching(release, recipe) as loop:
        yield loop


@contextmanager
def watching(
    release: Release, recipe: Recipe | None, unwrap: Callable[[nn.Module], nn.Module] | None = None
) -> Iterator[LoopRelease]:
    """Run a training loop, then make the fingerprint of what it ships.

    release, recipe, unwrap: see `LoopRelease`.
    """
    if release.is_wanted:
        release.check(None, recipe)
    loop = LoopRelease(release, recipe, unwrap)
    yield loop
    loop.finish()
