"""Recipes inferred from the owner's model: those whose models came out like it are tried again, with changes.

Nobody tells how the owner's model was trained, but what it answers does: how sure it is, how much better on what it was
trained on than on other data, how far its answers spread. Recipes are drawn at random, models trained by them, and the
next recipes are taken from those whose models are nearest to the owner's in all that was measured (approximate Bayesian
computation with a population, Beaumont et al. 2009).
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace

from metav.models.recipe import DrawnRecipe
from metav.support.randomness import derive_seed
from metav.zoo.standing import Measurements

PARENTS = 3
"""Recipes that the next ones are made from."""
KEPT = 0.75
"""Chance of each part of a recipe to be that of its parent instead of drawn anew."""
EXPLORED = 0.25
"""Share of the recipes that are drawn freely all the same: an honest model may be trained in any way."""
NUDGE = 1.4
"""Largest factor, and its inverse, between a learning rate and that of its parent."""


def nearest_recipes(
    owner: Measurements, tried: Sequence[tuple[DrawnRecipe, Measurements]], count: int = PARENTS
) -> tuple[DrawnRecipe, ...]:
    """Return the recipes whose models are nearest to the owner's, the nearest first.

    owner: what was measured of the owner's model.
    tried: recipes, and the same of their models.

    Each quantity counts in the robust deviation of the models from the owner.
    """
    quantities = [name for name in owner if all(math.isfinite(values[name]) for _, values in tried)]
    scales = {
        name: statistics.median(abs(values[name] - owner[name]) for _, values in tried) or 1.0 for name in quantities
    }

    def distance(values: Measurements) -> float:
        # one quantity that is far off does not outweigh all others
        return sum(min(abs(values[name] - owner[name]) / scales[name], 3.0) for name in quantities)

    ranked = sorted(tried, key=lambda entry: distance(entry[1]))
    return tuple(recipe for recipe, _ in ranked[:count])


def descendant(drawn: DrawnRecipe, parents: Sequence[DrawnRecipe], seed: int) -> DrawnRecipe:
    """Return a recipe made from one of `parents` and one that was drawn; the drawn one where there are no parents.

    drawn: gives the data and whatever is not kept.
    seed: of all choices.
    """
    numbers = random.Random(derive_seed(seed, "descendant"))
    if not parents or numbers.random() < EXPLORED:
        return drawn
    parent = numbers.choice(parents)
    names = ("epochs", "batch_size", "weight_decay", "schedule", "smoothing", "augmentation", "trains_on_all")
    kept = {name: getattr(parent, name) for name in names if numbers.random() < KEPT}
    if numbers.random() < KEPT:  # a rate fits one optimiser only
        rate = parent.learning_rate
        factor = NUDGE ** (2.0 * numbers.random() - 1.0)
        kept |= {"optimizer": parent.optimizer, "learning_rate": None if rate is None else rate * factor}
    return replace(drawn, **kept)
