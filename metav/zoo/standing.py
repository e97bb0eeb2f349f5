"""Where the owner's model stands among the independent ones: whether they are as confident and as good as it is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from metav.tasks.array_task import ArrayTask
from metav.tasks.arrays import evenly
from metav.tasks.base import Task
from metav.tasks.classification import log_probabilities
from metav.tasks.recipes import RecipeRange
from metav.tasks.supervised import SupervisedTask

MOST_EXAMPLES = 1000
"""Examples of each part that the models are measured on, at most."""
Measurements = Mapping[tuple[str, str], float]
"""Values by quantity and part of the data, see `StandingRow`."""
LACK_OF_FIT = "lack of fit"
REACHED = 2.0
"""Lack of fit of the median independent model, in that of the owner's, from which on trainings get longer."""
SLACK = 0.3
"""How far outside the owner's model still counts as inside, where 1 is from the independent models' median to their end
of the range. A model that is one of them is further outside in about one of a hundred cases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingRow:
    """One measurement of the owner's model beside those of the independent models.

    quantity: "confidence" (mean of the largest log-probability), "spread" (logarithm of the root mean square of centred
        log-probabilities), "loss" or "metric", of the task, or LACK_OF_FIT.
    part: "training" or "validation", of the task's data.
    owner: the value of the owner's model.
    lowest, median, highest: of the independent models.
    """

    quantity: str
    part: str
    owner: float
    lowest: float
    median: float
    highest: float

    @property
    def excess(self) -> float:
        """How far the owner lies outside: positive above, negative below, 0 inside.

        The unit is the distance from the median to that end of the range.
        """
        least = 1e-9 + 1e-6 * abs(self.median)
        above = max(0.0, self.owner - self.highest) / max(self.highest - self.median, least)
        return above - max(0.0, self.lowest - self.owner) / max(self.median - self.lowest, least)

    @property
    def covered(self) -> bool:
        """Whether the owner lies in the range, up to SLACK."""
        return abs(self.excess) <= SLACK


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerStanding:
    """Where the owner's model stands among independent models of its class, trained on its data.

    rows: one per quantity and part.
    models: how many independent models there are.
    recipe: "told" where they come from the owner's own recipe, "loop" where the task has a training loop of its own,
        "drawn" where recipes were drawn.
    stretches: how often the range of the recipes was stretched to reach the owner.
    """

    rows: tuple[StandingRow, ...]
    models: int
    recipe: str
    stretches: int = 0

    @property
    def covered(self) -> bool:
        """Whether the owner lies within the range of the independent models in every row."""
        return all(row.covered for row in self.rows)

    @property
    def reached(self) -> bool:
        """Whether most of the independent models fit their data about as well as the owner's model does."""
        rows = [row for row in self.rows if row.quantity == LACK_OF_FIT]
        return all(row.median <= REACHED * row.owner for row in rows)

    @property
    def apart(self) -> bool:
        """Whether models with drawn recipes are so unlike the owner's that what they show may not hold for its kin."""
        return self.recipe == "drawn" and not (self.covered and self.reached)

    def excess(self, quantity: str, part: str) -> float:
        """Return how far the owner lies outside in one row, see `StandingRow`; 0 where there is no such row."""
        found = (row.excess for row in self.rows if (row.quantity, row.part) == (quantity, part))
        return next((value if abs(value) > SLACK else 0.0 for value in found), 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return all values, fit for JSON."""
        rows = [{**asdict(row), "covered": row.covered} for row in self.rows]
        return {
            "covered": self.covered,
            "reached": self.reached,
            "apart": self.apart,
            "recipe": self.recipe,
            "models": self.models,
            "stretches": self.stretches,
            "rows": rows,
        }


def owner_standing(
    owner: Measurements, measured: Sequence[Measurements], *, recipe: str, stretches: int = 0
) -> OwnerStanding | None:
    """Return where the owner's model stands; None without independent models.

    owner, measured: what was measured of it, and of each independent model.
    """
    if not measured:
        return None
    rows = []
    for (quantity, part), value in owner.items():
        values = [entry[quantity, part] for entry in measured]
        if all(map(math.isfinite, (value, *values))):
            lowest, middle, highest = min(values), statistics.median(values), max(values)
            rows.append(
                StandingRow(quantity=quantity, part=part, owner=value, lowest=lowest, median=middle, highest=highest)
            )
    return OwnerStanding(rows=tuple(rows), models=len(measured), recipe=recipe, stretches=stretches)


def measurements(task: Task, model: nn.Module) -> Measurements:
    """Return confidence, spread, loss, metric and lack of fit of a model, as far as the task has them.

    Tasks without data in memory, and generation, have the metric alone.
    """
    if not isinstance(task, ArrayTask) or task.kind.inputs_are_latents or task.targets is None:
        return {("metric", "validation"): float(task.metric(model))}
    found: dict[tuple[str, str], float] = {}
    for part, every in (("training", task.training_indices), ("validation", task.validation_indices)):
        if len(every) == 0:
            continue
        indices = evenly(every, task.measured_at_once(MOST_EXAMPLES))
        outputs, targets = task.answers(model, task.examples[indices]), task.targets[indices]
        if task.kind.answers_classes:
            logs = log_probabilities(outputs)
            found["confidence", part] = float(logs.amax(dim=1).mean())
            found["spread", part] = float((logs - logs.mean(dim=1, keepdim=True)).square().mean().sqrt().log())
        found["loss", part] = float(task.loss(outputs, targets))
        found["metric", part] = float(task.validated_on(indices).metric(model))
    if isinstance(task, SupervisedTask):
        found[LACK_OF_FIT, "training"] = task.lack_of_fit(model)
    return found


def stretched(recipe_range: RecipeRange, standing: OwnerStanding, task: Task) -> RecipeRange:
    """Return a range of recipes that reaches further to where the owner's model stands.

    More confident, or of lower loss, than all independent models, or fitting better than most: longer trainings. Less
    confident without being worse on what it was trained on: more smoothing and augmentation. Worse on it: shorter
    trainings. Better on held-back data than all: longer ones, with more augmentation.
    """
    sign = 1.0 if task.higher_is_better else -1.0
    confidence, loss = standing.excess("confidence", "training"), standing.excess("loss", "training")
    known, learned = sign * standing.excess("metric", "training"), sign * standing.excess("metric", "validation")
    longer = confidence > 0.0 or loss < 0.0 or known > 0.0 or not standing.reached
    softer = (confidence < 0.0 or loss > 0.0) and known >= 0.0
    shorter = known < 0.0 or (learned < 0.0 and not longer)
    better = learned > 0.0 or standing.excess("loss", "validation") < 0.0
    other = recipe_range
    if longer or softer or better:
        other = replace(other, longest=1.5 * other.longest, longer=0.5)
    if shorter:
        other = replace(other, shortest=0.5 * other.shortest)
    if softer:
        other = replace(other, smoothed=_more(other.smoothed))
    if softer or better:
        other = replace(other, augmented=_more(other.augmented))
    return other


def _more(share: float) -> float:
    """Return a share halfway between a share and 1."""
    return 0.5 * (1.0 + share)
