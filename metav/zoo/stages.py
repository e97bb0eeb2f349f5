"""How a zoo is trained: which recipe each model gets, and in stages, so that the recipes can reach the owner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from metav.obfuscations.registry import OBFUSCATIONS
from metav.support.arithmetic import fixed_arithmetic
from metav.support.randomness import isolated_rng
from metav.tasks.recipes import SUSPECT_RANGE, USUAL_RANGE, RecipeRange, draw_recipe
from metav.zoo.cache import TrainedModel
from metav.zoo.plan import CLASSICAL, HOMOLOGOUS, KINDRED, OTHER_DATA, PlannedModel, is_drawn
from metav.zoo.standing import OwnerStanding, owner_standing, stretched
from metav.zoo.training import ZooContext

STAGES = 3
"""Parts that the independent models are trained in; between them the range of recipes may be stretched."""
FEWEST_IN_STAGES = 12
"""Homologous models from which on a zoo is trained in stages: fewer show no range that an owner could be outside of."""
DERIVED_WITH_RECIPE = 0.5
"""Share of the derived models that need training whose thief has a recipe of his own."""

Train = Callable[[Sequence[PlannedModel]], Mapping[str, TrainedModel]]
"""Train planned models, and return them by run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedZoo:
    """The models of a zoo as they were trained.

    plan: with the recipe of each.
    trained: by run.
    standing: of the owner among the homologous ones; None where it was not measured.
    """

    plan: tuple[PlannedModel, ...]
    trained: Mapping[str, TrainedModel]
    standing: OwnerStanding | None


def train_in_stages(plan: Sequence[PlannedModel], context: ZooContext, train: Train, *, suspects: bool) -> TrainedZoo:
    """Give each planned model its recipe and train it.

    Models of a told recipe come first, since most that can go wrong goes wrong there. Without one the independent
    models are trained in three parts, and after each the range of the recipes is stretched where the owner stands
    outside. Which models there are does not depend on `train`, only on what it returns.
    """
    told = context.recipe is not None
    if suspects:
        done = [with_recipe(planned, context, SUSPECT_RANGE, suspects=True) for planned in plan]
        return TrainedZoo(plan=tuple(done), trained=train(done), standing=None)
    recipe_range, stretches = USUAL_RANGE, 0
    finished: dict[str, PlannedModel] = {}
    trained: dict[str, TrainedModel] = {}
    standing: OwnerStanding | None = None
    stages = _told_first(plan) if told else _in_parts(plan)
    for number, stage in enumerate(stages):
        if number and standing is not None and not standing.covered and not told:
            recipe_range, stretches = stretched(recipe_range, standing, context.task), stretches + 1
        done = [with_recipe(planned, context, recipe_range) for planned in stage]
        finished |= {planned.run: planned for planned in done}
        trained |= train(done)
        standing = _standing([finished[entry.run] for entry in plan if entry.run in finished], trained, context)
        standing = None if standing is None else replace(standing, stretches=stretches)
    return TrainedZoo(plan=tuple(finished[planned.run] for planned in plan), trained=trained, standing=standing)


def with_recipe(
    planned: PlannedModel, context: ZooContext, recipe_range: RecipeRange, *, suspects: bool = False
) -> PlannedModel:
    """Return a planned model with the recipe that it is trained by.

    suspects: whether homologous models train in the task's own way.
    """
    task, families = context.task, (KINDRED, CLASSICAL, *([HOMOLOGOUS] if suspects else []))
    if planned.is_positive:
        needs_training = OBFUSCATIONS[planned.family].needs_training
        if not needs_training or not is_drawn(planned.seed, "drawn recipe", DERIVED_WITH_RECIPE):
            return planned
        task = context.thief_task
    elif planned.family in families:
        return planned
    elif planned.family == OTHER_DATA and context.other_task is not None:
        task = context.other_task
    recipe = draw_recipe(task, planned.seed, recipe_range)
    # changed data are a part of the examples already
    is_part = planned.varied or (planned.family == OTHER_DATA and context.other_task is None)
    return replace(planned, recipe=replace(recipe, part=1.0) if is_part else recipe)


def _told_first(plan: Sequence[PlannedModel]) -> list[list[PlannedModel]]:
    kindred = [planned for planned in plan if planned.family == KINDRED]
    return [kindred, [planned for planned in plan if planned.family != KINDRED]]


def _in_parts(plan: Sequence[PlannedModel]) -> list[list[PlannedModel]]:
    independent = [planned for planned in plan if not planned.is_positive]
    if sum(planned.family == HOMOLOGOUS for planned in independent) < FEWEST_IN_STAGES:
        return [list(plan)]
    parts: list[list[PlannedModel]] = [[planned for planned in plan if planned.is_positive], [], []]
    for index, planned in enumerate(independent):
        parts[index * STAGES // len(independent)].append(planned)
    return parts


def _standing(
    plan: Sequence[PlannedModel], trained: Mapping[str, TrainedModel], context: ZooContext
) -> OwnerStanding | None:
    """Return where the owner stands among the kindred models, or the homologous ones where there are none."""
    family, recipe = (HOMOLOGOUS, "drawn") if context.recipe is None else (KINDRED, "told")
    chosen = [planned for planned in plan if planned.family == family and planned.attack is None]
    with isolated_rng(0), fixed_arithmetic():
        models = [context.model(planned, trained[planned.run].states[-1]) for planned in chosen]
        return owner_standing(context.owner, models, context.task, recipe=recipe)
