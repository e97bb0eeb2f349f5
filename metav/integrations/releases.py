"""The shared core of all integrations: what a training ships is fingerprinted, saved and told to the trackers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from metav.errors import InputError
from metav.fingerprinting import check_request, fingerprint
from metav.fingerprints.fingerprint import Fingerprint
from metav.integrations.alone import RecipeAlone, is_one_of_several, recipe_runs
from metav.integrations.shipped_weights import shipped
from metav.integrations.trackers.registry import log_fingerprint, open_tracker
from metav.optimization.options import OptimizationOptions
from metav.support.files import PathLike, path_text
from metav.support.torch_state import in_standard_torch_state
from metav.support.user_warnings import warn_user
from metav.tasks.base import Task
from metav.tasks.user_tasks import as_task
from metav.zoo.building import NEGATIVES, POSITIVES, SNAPSHOTS, ZooOptions, build_zoo
from metav.zoo.told_recipes import Recipe

Weights = Mapping[str, Tensor]
AGAIN = "again"
"""Stands for the recipe that repeats a training under other seeds."""


class FingerprintOptions(ZooOptions, total=False):
    """How the fingerprint is made, the same for all integrations; what is left out has the default of metav.

    positives, negatives, and what is not named here: as for `metav.build_zoo`.
    queries, target_fpr, options: as for `metav.fingerprint`.
    seed: of every random choice.
    cache: a folder that keeps trained surrogates. A run that was killed continues from it, and jobs on other machines
        may fill it (`metav zoo train`).
    jobs: processes that train; None is one per core, where that saves time. A process that is one of several that train
        together lets others train the surrogates: two for None, and for 1 with a warning.
    progress: None shows a bar on a terminal, False never, True always.
    """

    positives: int
    negatives: int
    queries: int | None
    target_fpr: float
    options: OptimizationOptions | None


OF_OPTIMIZATION = ("queries", "target_fpr", "options")
"""Options that `metav.fingerprint` alone takes."""
OF_BOTH = ("seed", "progress")
"""Options that `metav.fingerprint` takes even where the zoo is there; all but those of the optimisation build it."""


@runtime_checkable
class Repeatable(Protocol):
    """A recipe that knows the epochs of its training."""

    def __call__(self, seed: int, /) -> nn.Module:
        """Return the trained model of a seed."""

    def until(self, epoch: int, /) -> Recipe:
        """Return the recipe of a training that ends after an epoch, the first of which is 1."""


class Release:
    """The fingerprint of what a training ships, made once it is done.

    path: the `.metav` file to write; that of an epoch gets its number, as in owner-epoch3.metav.
    task: what the model has learned, with its data.
    trackers: names ("mlflow", "wandb", "tensorboard"), runs, writers or loggers that are told what it shows.
    part: name of the submodule that ships, see `shipped`.
    every: epochs between fingerprints before the last one; None for none.
    is_first: whether this process is the first of those that train together; None asks PyTorch.
    options: see `FingerprintOptions`.

    Raises InputError for what cannot be used.
    """

    def __init__(
        self,
        path: PathLike,
        task: Task,
        *,
        trackers: Sequence[Any] = (),
        part: str | None = None,
        every: int | None = None,
        is_first: bool | None = None,
        options: FingerprintOptions,
    ) -> None:
        self.path = Path(path_text(path))
        self.task = as_task(task)
        self.part = part
        self.every = every
        self._is_first = is_first
        self.options = options
        self.fingerprint: Fingerprint | None = None
        self.fingerprints: dict[int, Fingerprint] = {}
        self._check()
        self._trackers = [open_tracker(entry) for entry in _listed(trackers)]

    def _check(self) -> None:
        unknown = sorted(set(self.options) - set(FingerprintOptions.__annotations__))
        if unknown:
            known = ", ".join(FingerprintOptions.__annotations__)
            raise InputError(f"{unknown[0]} is no option of a fingerprint; expected one of {known}")
        if self.path.suffix != ".metav":
            raise InputError(f"path must end in .metav, got {self.path}; name the fingerprint to write")
        every = self.every
        if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise InputError(f"every must be a whole number of epochs from 1, or None, got {every!r}")

    @property
    def is_wanted(self) -> bool:
        """Whether this process is to make the fingerprint: not inside a recipe, and of several the first one only."""
        return not recipe_runs() and (is_first_process() if self._is_first is None else self._is_first)

    def is_due(self, epoch: int) -> bool:
        """Return whether a fingerprint is wanted after an epoch, the first of which is 1."""
        return self.is_wanted and self.every is not None and epoch % self.every == 0

    @in_standard_torch_state
    def check(self, model: nn.Module | None, recipe: Recipe | None) -> None:
        """Find before the training what would fail after it.

        model: before its training; None where it is not there yet.

        Raises what `make` does.
        """
        folder = self.path.parent
        if self.path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            raise InputError(f"{self.path} cannot be written; name a file in a folder that is there and may be changed")
        given: Any = self.options
        building: Any = {"recipe": recipe}
        building |= {name: given[name] for name in ZooOptions.__annotations__ if name in given}
        check_request(
            self.task,
            owner=None if model is None else shipped(model, part=self.part),
            sizes=(given.get("positives", POSITIVES), given.get("negatives", NEGATIVES), SNAPSHOTS),
            building=building,
            **{name: given[name] for name in OF_OPTIMIZATION if name in given},
        )

    def make(
        self, model: nn.Module, recipe: Recipe | None, *, weights: Weights | None = None, epoch: int | None = None
    ) -> Fingerprint:
        """Make the fingerprint of what a model ships, save it, tell the trackers and return it.

        model: as it is in the training, which it leaves untouched.
        recipe: from a seed to a model trained like it; None where recipes are to be drawn. One that is `Repeatable` is
            asked for a training that ends after the epoch.
        weights: that ship instead of the model's own.
        epoch: after which it is made; None at the end.

        Raises what `metav.fingerprint` does.
        """
        if epoch is not None and isinstance(recipe, Repeatable):
            recipe = recipe.until(epoch)
        return self.make_of(shipped(model, weights, part=self.part), recipe, epoch=epoch)

    def make_of(self, owner: nn.Module, recipe: Recipe | None, *, epoch: int | None = None) -> Fingerprint:
        """Make the fingerprint of what ships.

        owner: see `shipped`.
        recipe, epoch: see `make`.
        """
        given: Any = self.options
        building = {name: value for name, value in given.items() if name not in OF_OPTIMIZATION}
        rest = {name: given[name] for name in (*OF_OPTIMIZATION, *OF_BOTH) if name in given}
        if is_one_of_several() and given.get("jobs") in (None, 1):
            building["jobs"] = 2
            if given.get("jobs") == 1:
                warn_user(
                    "jobs=1 stands for this process, but it is one of several that train together, and a collective "
                    "call that it makes alone would wait for ever; two other processes train the surrogates, use jobs=2"
                )
        alone = None if recipe is None else RecipeAlone(recipe)
        zoo = build_zoo(owner, self.task, recipe=alone, **building)
        made = fingerprint(owner, self.task, zoo=zoo, **rest)
        made.save(self.path if epoch is None else self.path_of(epoch))
        for tracker in self._trackers:
            log_fingerprint(made, tracker, step=epoch)
        if epoch is None:
            self.fingerprint = made
        else:
            self.fingerprints[epoch] = made
        return made

    def path_of(self, epoch: int) -> Path:
        """Return the file of the fingerprint after an epoch."""
        return self.path.with_name(f"{self.path.stem}-epoch{epoch}{self.path.suffix}")


class Releasing:
    """What users see of a release: a part of all callbacks and contexts."""

    _release: Release

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The fingerprint of what ships; None before it is made, in a recipe, and in all processes but the first."""
        return self._release.fingerprint

    @property
    def fingerprints(self) -> dict[int, Fingerprint]:
        """Those made after epochs, by epoch."""
        return dict(self._release.fingerprints)


def check_recipe_choice(recipe: object) -> None:
    """Raise InputError for a recipe that is a text, but not "again"."""
    if isinstance(recipe, str) and recipe != AGAIN:
        raise InputError(f"recipe must be a function, {AGAIN!r} or None, got {recipe!r}")


def is_first_process() -> bool:
    """Return whether this process is the only one, or the first of those that train together."""
    if is_one_of_several():
        return torch.distributed.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def _listed(trackers: Any) -> list[Any]:
    return list(trackers) if isinstance(trackers, list | tuple) else [trackers]
