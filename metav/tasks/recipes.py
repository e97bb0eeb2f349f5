"""Recipes drawn at random, for models that stand for those that somebody else has trained.

A zoo whose independent models are all trained in one way teaches that everybody who trains otherwise is a thief. So
each of them gets a recipe of its own.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

from metav.models.recipe import DrawnRecipe
from metav.models.training import TrainingOptions
from metav.support.randomness import derive_seed
from metav.tasks.augmentations import augmentation_for
from metav.tasks.base import Task

SGD_RATE = 15.0
"""How much larger a learning rate gradient descent with momentum needs than Adam."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeRange:
    """What recipes are drawn from.

    shortest, longest: epochs, as multiples of the task's.
    longer: share of the recipes that are longer than the task; with 0.4, all together cost about as much as the task's.
    rate_factor: the largest learning rate over the smallest; the task's own lies in the middle.
    batches: smallest and largest batch, as shares of the task's or of 64, whichever is larger.
    largest_decay: of weights, in the two of three recipes that have one; the smallest is a hundredth of it.
    optimizers, schedules: names, see `TrainingOptions`.
    smoothed, augmented: shares of the recipes with smoothed labels, of up to 0.2, and with an augmentation.
    least_part: the smallest share of the data.
    on_all: share of the recipes that train on the task's validation part as well, as an owner may have done.
    """

    shortest: float = 0.4
    longest: float = 4.0
    longer: float = 0.4
    rate_factor: float = 8.0
    batches: tuple[float, float] = (0.25, 1.0)
    largest_decay: float = 1e-3
    optimizers: tuple[str, ...] = ("adam", "sgd")
    schedules: tuple[str, ...] = ("constant", "cosine")
    smoothed: float = 0.4
    augmented: float = 1 / 3
    least_part: float = 0.6
    on_all: float = 0.5


USUAL_RANGE = RecipeRange()
"""What the recipes of a zoo are drawn from, unless the owner stands out."""
SUSPECT_RANGE = RecipeRange(
    shortest=0.3,
    longest=5.0,
    rate_factor=12.0,
    batches=(0.125, 1.5),
    largest_decay=3e-3,
    optimizers=("adamw", "adam", "sgd"),
    schedules=("warm_up_cosine", "constant", "cosine"),
    smoothed=0.5,
    augmented=0.5,
    least_part=0.5,
)
"""What the recipes of test suspects are drawn from: wider than that of any zoo."""


def draw_recipe(task: Task, seed: int, recipe_range: RecipeRange = USUAL_RANGE) -> DrawnRecipe:
    """Return a random recipe for a task; the same arguments give the same one.

    seed: of all draws. In a wider range the same seed gives a recipe that differs in what the range says alone.

    Of a task with a training loop of its own only length and data are drawn, of generation also rate and batch.
    """
    numbers = random.Random(derive_seed(seed, "recipe"))
    length, part, rate, batch, decay, smooth, augment, amount = (numbers.random() for _ in range(8))
    trains_on_all = numbers.random() < recipe_range.on_all
    optimizer, schedule = numbers.choice(recipe_range.optimizers), numbers.choice(recipe_range.schedules)
    recipe = DrawnRecipe(
        epochs=task.epochs * _length(length, recipe_range),
        part=recipe_range.least_part + (1.0 - recipe_range.least_part) * part,
        seed=derive_seed(seed, "recipe's data"),
        trains_on_all=trains_on_all,
    )
    options = task.options
    if task.has_own_loop or options is None:
        return recipe
    middle = options.learning_rate * recipe_range.rate_factor ** (rate - 0.5)
    recipe = replace(
        recipe,
        learning_rate=middle,
        batch_size=_batch_size(task, options, batch, recipe_range, length < recipe_range.longer),
    )
    if task.kind.inputs_are_latents:
        return recipe
    smoothed = task.kind.answers_classes and smooth < recipe_range.smoothed
    augmented = augment < recipe_range.augmented and task.examples is not None
    return replace(
        recipe,
        learning_rate=middle * (SGD_RATE if optimizer == "sgd" else 1.0),
        weight_decay=0.0 if decay < 1 / 3 else recipe_range.largest_decay * 10.0 ** (3.0 * (decay - 1.0)),
        optimizer=optimizer,
        schedule=schedule,
        smoothing=0.05 + 0.15 * amount if smoothed else 0.0,
        augmentation=augmentation_for(task.examples, is_aligned=task.is_aligned)
        if augmented and task.examples is not None
        else None,
    )


def _length(number: float, recipe_range: RecipeRange) -> float:
    """Return a multiple of the task's epochs for a number in [0, 1), on a log scale on either side of 1."""
    longer = recipe_range.longer
    if number < longer:
        return math.exp(number / longer * math.log(recipe_range.longest))
    return math.exp((number - longer) / (1.0 - longer) * math.log(recipe_range.shortest))


def _batch_size(task: Task, options: TrainingOptions, number: float, recipe_range: RecipeRange, is_long: bool) -> int:
    smallest, largest = (share * max(64, options.batch_size) for share in recipe_range.batches)
    # on a log scale, the larger ones more often, most of all where the training is long: small batches take time
    place = number ** (0.25 if is_long else 0.5)
    wanted = round(math.exp(math.log(smallest) + place * math.log(largest / smallest)))
    # a batch holds at most an eighth of the data, so that an epoch is more than a few steps
    most = wanted if task.examples is None else len(task.examples) // 8
    return max(2, min(wanted, most))
