"""How long a zoo takes to train, from a few of its models that are trained for a moment on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from metav.obfuscations.registry import OBFUSCATIONS
from metav.support.arithmetic import fixed_arithmetic
from metav.support.randomness import isolated_rng
from metav.zoo.plan import KINDRED, PlannedModel
from metav.zoo.training import SnapshotRecorder, ZooContext, train_one

BUDGET = 20.0
"""Seconds that the measurement takes, about, where models take longer."""
WARMING = 5.0
"""Seconds below which the first training that is measured is measured once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooSeconds:
    """Seconds of processor time that planned models take, and where these come from.

    total: of all models.
    measured: of one model, by family; extrapolated where its training was not run to its end.
    assumed: families that were not measured, and are taken to need as long per epoch as those that were.
    """

    total: float
    measured: Mapping[str, float]
    assumed: tuple[str, ...]


class EnoughError(BaseException):
    """Ends a training that was measured long enough; no code of a user's task catches it as an error."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _Stopwatch(SnapshotRecorder):
    """Stops a training after so many seconds, at its second epoch at the earliest, and tells how long all of it takes.

    The first epoch is not counted where there are more: in it, PyTorch makes ready what it needs.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(())
        self.limit, self.begun = limit, time.perf_counter()
        self.first: tuple[float, float] | None = None

    def __call__(self, share: float, model: nn.Module) -> None:
        now = time.perf_counter()
        if self.first is None:
            self.first = share, now
        elif share < 1.0 and now - self.begun > self.limit:
            raise EnoughError((now - self.first[1]) / (share - self.first[0]))


def measure_zoo(
    plan: Sequence[PlannedModel],
    context: ZooContext,
    *,
    budget: float = BUDGET,
    say: Callable[[str], object] | None = None,
) -> ZooSeconds:
    """Return how long planned models take, from one of each family, the most frequent families first.

    plan: those that are still to be trained, with the recipe of each.
    budget: seconds of measuring after which no further family is looked at; each is stopped after its part of it, at
        the end of an epoch. A model of a told recipe is trained to its end, since nobody can stop it in between.
    say: is given each family before it is measured.
    """
    groups: dict[str, list[PlannedModel]] = {}
    for planned in plan:
        groups.setdefault(planned.family, []).append(planned)
    typical = {family: _typical(group) for family, group in groups.items()}
    order = sorted(groups, key=lambda family: (family != KINDRED, not _trains(typical[family]), -len(groups[family])))
    measured: dict[str, float] = {}
    begun = time.perf_counter()
    for family in order:
        if measured and time.perf_counter() - begun > budget:
            break
        if say is not None:
            say(family)
        seconds = _seconds_of(typical[family], context, budget / len(order))
        if not measured and seconds < WARMING:  # much of it may be what PyTorch does once in a process
            seconds = _seconds_of(typical[family], context, budget / len(order))
        measured[family] = seconds
    rates = [measured[family] / _epochs(typical[family], context) for family in measured if _trains(typical[family])]
    rate = sum(rates) / len(rates) if rates else 0.0
    total = 0.0
    for planned in plan:
        epochs, example = _epochs(planned, context), typical[planned.family]
        known = measured.get(planned.family)
        total += rate * epochs if known is None else known * epochs / _epochs(example, context)
    assumed = tuple(family for family in order if family not in measured)
    return ZooSeconds(total=total, measured=measured, assumed=assumed)


def _typical(group: Sequence[PlannedModel]) -> PlannedModel:
    """Return the model of a family that is measured: its training is of the middle length."""
    ranked = sorted(group, key=lambda planned: (0.0 if planned.recipe is None else planned.recipe.epochs, planned.run))
    return replace(ranked[len(ranked) // 2], attack=None)


def _trains(planned: PlannedModel) -> bool:
    return not planned.is_positive or OBFUSCATIONS[planned.family].needs_training


def _epochs(planned: PlannedModel, context: ZooContext) -> float:
    """Return the epochs of a model's training; 1 where they are not known, so that all of these count alike."""
    if planned.recipe is not None:
        return planned.recipe.epochs
    return 1.0 if context.task.options is None else context.task.options.epochs


def _seconds_of(planned: PlannedModel, context: ZooContext, limit: float) -> float:
    watched = replace(planned, snapshots=(0.5,))  # so that the training calls back
    begun = time.perf_counter()
    with fixed_arithmetic(), isolated_rng(planned.seed):
        try:
            model = train_one(watched, context, _Stopwatch(limit))
        except EnoughError as enough:
            return enough.seconds
        context.task.metric(model)
    return time.perf_counter() - begun
