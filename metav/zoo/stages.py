"""How a zoo is trained: which recipe each model gets, and in stages, so that the recipes can reach the owner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from metav.models.recipe import DrawnRecipe
from metav.obfuscations.registry import OBFUSCATIONS
from metav.support.arithmetic import fixed_arithmetic
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.recipes import SUSPECT_RANGE, USUAL_RANGE, RecipeRange, draw_recipe
from metav.zoo.cache import TrainedModel
from metav.zoo.inferred_recipes import descendant, nearest_recipes
from metav.zoo.plan import CLASSICAL, HOMOLOGOUS, KINDRED, OTHER_DATA, PlannedModel, is_drawn
from metav.zoo.standing import LACK_OF_FIT, Measurements, OwnerStanding, measurements, owner_standing, stretched
from metav.zoo.training import ZooContext

STAGES = 4
"""Parts that the independent models are trained in; between them the range of recipes may be stretched."""
FEWEST_IN_STAGES = 12
"""Homologous models from which on a zoo is trained in stages: fewer show no range that an owner could be outside of."""
FIT_FACTOR = 1.5
"""Independent models with drawn recipes are trained to the owner's lack of fit, up to this factor more or less."""
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
    models are trained in parts: after each the range of the recipes is stretched where the owner stands outside, and
    the next recipes are made from those whose models are most like the owner's. Which models there are does not depend
    on `train`, only on what it returns.
    """
    told = context.recipe is not None
    if suspects:
        done = [with_recipe(planned, context, SUSPECT_RANGE, suspects=True) for planned in plan]
        return TrainedZoo(plan=tuple(done), trained=train(done), standing=None)
    recipe_range, stretches = USUAL_RANGE, 0
    finished: dict[str, PlannedModel] = {}
    trained: dict[str, TrainedModel] = {}
    standing, peers = None, _Peers(context)
    stages = _told_first(plan) if told else _in_parts(plan)
    for number, stage in enumerate(stages):
        if number and standing is not None and not (standing.covered and standing.reached) and not told:
            recipe_range, stretches = stretched(recipe_range, standing, context.task), stretches + 1
        parents = peers.nearest()
        done = [with_recipe(entry, context, recipe_range, parents=parents, fit=peers.owner_fit) for entry in stage]
        finished |= {planned.run: planned for planned in done}
        trained |= train(done)
        peers.measure(done, trained)
        standing = peers.standing(stretches)
    return TrainedZoo(plan=tuple(finished[planned.run] for planned in plan), trained=trained, standing=standing)


def usual_recipes(plan: Sequence[PlannedModel], context: ZooContext) -> tuple[PlannedModel, ...]:
    """Return planned models with recipes as they are drawn before any model has shown where the owner stands."""
    fit = _Peers(context).owner_fit
    return tuple(with_recipe(planned, context, USUAL_RANGE, fit=fit) for planned in plan)


def recipes_in_advance(plan: Sequence[PlannedModel], context: ZooContext) -> tuple[PlannedModel, ...] | None:
    """Return all planned surrogates with the recipe that `train_in_stages` gives each, before any is trained.

    None where recipes follow from the models that were trained before: without a told recipe, in a zoo of many models.
    """
    depends = context.recipe is None and len(_in_parts(plan)) > 1
    return None if depends else usual_recipes(plan, context)


class _Peers:
    """The independent models that are most like the owner's: by the told recipe, else of its class and data."""

    def __init__(self, context: ZooContext) -> None:
        self._context = context
        own_way = "loop" if context.task.has_own_loop else "drawn"
        self._family, self._recipe = (HOMOLOGOUS, own_way) if context.recipe is None else (KINDRED, "told")
        self._found: dict[str, tuple[DrawnRecipe | None, Measurements]] = {}
        with isolated_rng(0), fixed_arithmetic():
            self._owner = measurements(context.task, context.owner)

    def measure(self, plan: Sequence[PlannedModel], trained: Mapping[str, TrainedModel]) -> None:
        """Measure those of the trained models that are peers."""
        for planned in plan:
            if planned.family != self._family or planned.attack is not None:
                continue
            with isolated_rng(0), fixed_arithmetic():
                model = self._context.model(planned, trained[planned.run].states[-1])
                self._found[planned.run] = planned.recipe, measurements(self._context.task, model)

    @property
    def owner_fit(self) -> float | None:
        """The owner's lack of fit, which drawn recipes train for; None where the task's loop cannot stop at one."""
        return None if self._context.task.has_own_loop else self._owner.get((LACK_OF_FIT, "training"))

    def standing(self, stretches: int) -> OwnerStanding | None:
        """Return where the owner's model stands among them; None where there are none."""
        measured = [values for _, values in self._found.values()]
        return owner_standing(self._owner, measured, recipe=self._recipe, stretches=stretches)

    def nearest(self) -> tuple[DrawnRecipe, ...]:
        """Return the drawn recipes whose models came out most like the owner's."""
        tried = [(recipe, values) for recipe, values in self._found.values() if recipe is not None]
        return nearest_recipes(self._owner, tried) if tried else ()


def with_recipe(
    planned: PlannedModel,
    context: ZooContext,
    recipe_range: RecipeRange,
    *,
    parents: Sequence[DrawnRecipe] = (),
    fit: float | None = None,
    suspects: bool = False,
) -> PlannedModel:
    """Return a planned model with the recipe that it is trained by.

    parents: recipes that those of independent models are made from, see `descendant`.
    fit: lack of fit that independent models are trained to, about; None: each as long as its recipe says.
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
    until = None if fit is None or planned.is_positive else _until(planned, fit)
    if until is not None:  # long enough to get there, whatever the rate
        recipe_range = replace(recipe_range, shortest=1.0, longer=1.0)
    recipe = draw_recipe(task, planned.seed, recipe_range)
    recipe = replace(recipe if planned.is_positive else descendant(recipe, parents, planned.seed), until=until)
    # changed data are a part of the examples already; whoever has the owner's data has all that queries are made of
    whole = (
        planned.varied or planned.family == HOMOLOGOUS or (planned.family == OTHER_DATA and context.other_task is None)
    )
    return replace(planned, recipe=replace(recipe, part=1.0) if whole else recipe)


def _until(planned: PlannedModel, fit: float) -> float:
    """Return the lack of fit at which an independent model is trained enough: around `fit`."""
    place = derive_seed(planned.seed, "until") % 10_001 / 10_000
    return fit * math.exp((2.0 * place - 1.0) * math.log(FIT_FACTOR))


def _told_first(plan: Sequence[PlannedModel]) -> list[list[PlannedModel]]:
    kindred = [planned for planned in plan if planned.family == KINDRED]
    return [kindred, [planned for planned in plan if planned.family != KINDRED]]


def _in_parts(plan: Sequence[PlannedModel]) -> list[list[PlannedModel]]:
    independent = [planned for planned in plan if not planned.is_positive]
    if sum(planned.family == HOMOLOGOUS for planned in independent) < FEWEST_IN_STAGES:
        return [list(plan)]
    parts: list[list[PlannedModel]] = [[] for _ in range(STAGES)]
    parts[0] = [planned for planned in plan if planned.is_positive]
    for index, planned in enumerate(independent):
        parts[index * STAGES // len(independent)].append(planned)
    return parts
