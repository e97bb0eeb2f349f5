"""The table of trackers: one row a kind, found by its name or by what the user has of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint
from metav.integrations.trackers.tracked_values import Tracker, log_values
from metav.support.dependencies import require


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerKind:
    """One kind of tracker.

    name: by which users choose it; the run that is active then counts.
    module: that it needs.
    home: of its class, as "module:Class"; called without arguments, or with what the user has.
    expected: what a user may have, for messages.
    recognises: whether something a user has is of this kind; imports nothing.
    """

    name: str
    module: str
    home: str
    expected: str
    recognises: Callable[[Any], bool]

    def open(self, *given: Any) -> Tracker:
        """Return the tracker; MissingDependencyError where its library is missing."""
        require(f"the tracker {self.name}", self.module, extra="integrations")
        module, _, name = self.home.partition(":")
        tracker: Tracker = getattr(importlib.import_module(module), name)(*given)
        return tracker


TRACKERS: tuple[TrackerKind, ...] = (
    TrackerKind(
        name="mlflow",
        module="mlflow",
        home="metav.integrations.trackers.mlflow:MlflowTracker",
        expected="an MLflow run",
        recognises=lambda thing: _is_of(thing, "mlflow", "ActiveRun", "Run", "MLFlowLogger"),
    ),
    TrackerKind(
        name="wandb",
        module="wandb",
        home="metav.integrations.trackers.wandb:WandbTracker",
        expected="a run of Weights & Biases",
        recognises=lambda thing: _is_of(thing, "wandb", "Run", "WandbLogger"),
    ),
    TrackerKind(
        name="tensorboard",
        module="tensorboard",
        home="metav.integrations.trackers.tensorboard:TensorBoardTracker",
        expected="a SummaryWriter",
        recognises=lambda thing: type(thing).__name__ in ("SummaryWriter", "TensorBoardLogger"),
    ),
)
"""All kinds of tracker."""


def _is_of(thing: Any, library: str, *names: str) -> bool:
    """Return whether something is of one of these classes: of the library's own, or a Lightning logger."""
    home, name = type(thing).__module__.partition(".")[0], type(thing).__name__
    return name in names and (home == library or (name.endswith("Logger") and "lightning" in home))


def open_tracker(thing: Any) -> Tracker:
    """Return the tracker for a name, a run, a writer or one of Lightning's loggers; a Tracker as it is.

    Raises InputError for anything else, MissingDependencyError where a library is missing.
    """
    if isinstance(thing, Tracker):
        return thing
    for kind in TRACKERS:
        if isinstance(thing, str) and thing == kind.name:
            return kind.open()
        if not isinstance(thing, str) and kind.recognises(thing):
            return kind.open(thing)
    given = repr(thing) if isinstance(thing, str) else type(thing).__name__
    names = ", ".join(f"{kind.name!r} or {kind.expected}" for kind in TRACKERS)
    raise InputError(f"{given} is no tracker; expected {names}")


def log_fingerprint(fingerprint: Fingerprint, tracker: Any, *, step: int | None = None) -> None:
    """Tell a tracker what a fingerprint shows: commitment, checks, figures, and all of it as a page.

    tracker: see `open_tracker`. A tracker made with `fingerprint_file=True` keeps the secret file, too, with a warning.
    step: the epoch after which it was made; None at the end of the training.
    """
    log_values(fingerprint, open_tracker(tracker), step)
