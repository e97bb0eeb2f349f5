"""Honest suspects by plain loops: the owner's recipe, other owners' recipes, on the owner's data or on others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from torch import nn

from metav.errors import ModelError
from metav.experiments.scenarios.recipes.owner_recipe import OwnerRecipe
from metav.experiments.scenarios.recipes.plain_loop import Loop
from metav.models.architectures import Architecture
from metav.support.randomness import derive_seed
from metav.tasks.base import Task
from metav.zoo.plan import CLASSICAL, KINDRED, OTHER_ARCHITECTURE, OTHER_DATA, OTHER_RECIPE
from metav.zoo.told_recipes import MOST_SEED

Data = Literal["owner", "thief", "other"]
"""Whose data a model learns from."""

KINDRED_OTHER_DATA = "independent_same_recipe_other_data"
OTHER_LOOPS: Mapping[str, Loop] = MappingProxyType(
    {
        "rmsprop": Loop(epochs=1.5, rate=0.6, batch=40, optimizer="rmsprop"),
        "cosine": Loop(epochs=1.2, rate=1.0, batch=24, optimizer="adamw", decay=1e-2, schedule="cosine"),
    }
)
"""Loops that no owner has: epochs and rate in those of the first recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedHonest:
    """One independent model to be, trained by a plain loop.

    recipe: number of the recipe; 0 is the owner's own, the last ones are OTHER_LOOPS.
    data: whose it learns from.
    architecture: index among the suspects' architectures; 0 is the owner's own.
    """

    family: str
    recipe: int
    data: Data
    seed: int
    run: str
    architecture: int = 0
    is_positive: bool = False


def plan_honest(
    counts: Mapping[str, int], *, recipes: int, architectures: int, has_other_data: bool, seed: int
) -> list[PlannedHonest]:
    """Return so many honest models of each family; larger numbers hold the models of smaller ones.

    counts: by family, of KINDRED, KINDRED_OTHER_DATA, OTHER_RECIPE, OTHER_ARCHITECTURE and OTHER_DATA.
    recipes: their number, OTHER_LOOPS included.
    architectures: their number, the owner's own included; 1 where nothing but that can be trained.
    has_other_data: whether there are data of another source.
    """
    planned = []
    for family, count in counts.items():
        if (family == OTHER_ARCHITECTURE and architectures < 2) or (family == OTHER_DATA and not has_other_data):
            continue
        for number in range(count):
            recipe, data, architecture = _choices(family, number, recipes, architectures)
            planned.append(
                PlannedHonest(
                    family=family,
                    recipe=recipe,
                    data=data,
                    architecture=architecture,
                    seed=derive_seed(seed, "honest", family, number) % MOST_SEED,
                    run=f"honest-{seed}/{family}/{number}",
                )
            )
    return planned


def _choices(family: str, number: int, recipes: int, architectures: int) -> tuple[int, Data, int]:
    """Return recipe, data and architecture of the model of this number."""
    if family == KINDRED:
        return 0, "owner", 0
    if family == KINDRED_OTHER_DATA:
        return 0, "thief", 0
    if family == OTHER_RECIPE:
        return 1 + number % (recipes - 1), "owner", 0
    turn = number // recipes
    if family == OTHER_ARCHITECTURE:
        return number % recipes, "owner" if turn % 2 == 0 else "thief", 1 + number % (architectures - 1)
    return number % recipes, "other", 0


def all_recipes(recipes: Sequence[OwnerRecipe]) -> tuple[OwnerRecipe, ...]:
    """Return the owners' recipes, followed by those of OTHER_LOOPS on the same data."""
    first = recipes[0]
    others = (
        replace(
            first,
            name=name,
            loop=replace(loop, epochs=loop.epochs * first.loop.epochs, rate=_rate(recipes) * loop.rate),
        )
        for name, loop in OTHER_LOOPS.items()
    )
    return (*recipes, *others)


def honest_recipe(
    planned: PlannedHonest,
    recipes: Sequence[OwnerRecipe],
    tasks: Mapping[str, Task],
    architectures: Sequence[Architecture],
) -> OwnerRecipe:
    """Return the recipe that a planned model is trained by, on its data and of its architecture.

    tasks: by PlannedHonest.data.
    """
    recipe = recipes[planned.recipe]
    if planned.data != "owner":
        recipe = recipe.on(tasks[planned.data])
    if planned.architecture:
        # a base's weights fit its own class alone
        recipe = replace(recipe, architecture=architectures[planned.architecture], start=None)
    return recipe


def train_honest(planned: PlannedHonest, recipe: OwnerRecipe) -> nn.Module:
    """Return the trained model. Raises ModelError, naming the run, where training diverges."""
    model = recipe(planned.seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(f"{planned.run} has NaN or infinite values in {name}; lower the rate of its loop")
    return model


def _rate(recipes: Sequence[OwnerRecipe]) -> float:
    """Return the rate of the first recipe that needs none as large as gradient descent's."""
    return next(recipe.loop.rate for recipe in recipes if recipe.loop.optimizer != "sgd")


HONEST_FAMILIES = (KINDRED, KINDRED_OTHER_DATA, OTHER_RECIPE, OTHER_ARCHITECTURE, OTHER_DATA, CLASSICAL)
"""Families of the honest suspects that no metav loop trained."""
