"""Recipes inferred from the owner's model: whose models are near it, and what the next recipes keep of theirs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import HeadFirst, digits
from torch import nn

import metav.zoo.stages
from metav.models.recipe import DrawnRecipe
from metav.support.randomness import isolated_rng
from metav.tasks.classification import Classification
from metav.tasks.recipes import draw_recipe
from metav.zoo.building import build_zoo
from metav.zoo.inferred_recipes import descendant, nearest_recipes
from metav.zoo.plan import HOMOLOGOUS

IMAGES, LABELS = digits()
TASK = Classification(IMAGES[:400], LABELS[:400], epochs=4, learning_rate=1e-2)
LOSS, METRIC = ("loss", "training"), ("metric", "validation")


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(3, 12))
def test_the_nearest_recipes_are_those_of_the_nearest_models_in_any_unit(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    owner = {LOSS: 0.5, METRIC: 0.9}
    distances = random.permutation(np.linspace(0.1, 1.0, count))
    tried = [
        (DrawnRecipe(epochs=1 + place), {LOSS: 0.5 + distance, METRIC: 0.9 - 0.01 * distance})
        for place, distance in enumerate(distances)
    ]
    expected = [1 + int(place) for place in np.argsort(distances)[:3]]
    assert [recipe.epochs for recipe in nearest_recipes(owner, tried)] == expected
    scaled = [(recipe, {LOSS: 1000 * values[LOSS], METRIC: values[METRIC]}) for recipe, values in tried]
    found = nearest_recipes({LOSS: 500.0, METRIC: 0.9}, scaled)
    assert [recipe.epochs for recipe in found] == expected


def test_what_cannot_be_measured_of_every_model_does_not_count() -> None:
    tried = [
        (DrawnRecipe(epochs=1), {LOSS: float("nan"), METRIC: 0.9}),
        (DrawnRecipe(epochs=2), {LOSS: 0.5, METRIC: 0.1}),
    ]
    assert nearest_recipes({LOSS: 0.5, METRIC: 0.9}, tried, 1)[0].epochs == 1


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_each_part_of_a_descendant_is_its_parents_or_drawn(seed: int) -> None:
    drawn, parent = draw_recipe(TASK, seed), draw_recipe(TASK, seed + 1)
    child = descendant(drawn, [parent], seed)
    assert child == descendant(drawn, [parent], seed)
    assert (child.part, child.seed) == (drawn.part, drawn.seed)
    for name in asdict(child).keys() - {"learning_rate"}:
        assert getattr(child, name) in (getattr(drawn, name), getattr(parent, name))
    assert child.learning_rate == drawn.learning_rate or 1 / 1.41 < child.learning_rate / parent.learning_rate < 1.41
    assert descendant(drawn, [], seed) == drawn


def test_most_descendants_keep_most_of_a_parent_and_some_nothing() -> None:
    parent = DrawnRecipe(
        epochs=77.0, batch_size=13, weight_decay=0.5, schedule="cosine", optimizer="sgd", smoothing=0.07
    )
    drawn = DrawnRecipe(epochs=1.0, batch_size=2, weight_decay=0.0, schedule="constant", optimizer="adam")
    names = ("epochs", "batch_size", "weight_decay", "schedule", "optimizer", "smoothing")
    children = [descendant(drawn, [parent], seed) for seed in range(400)]
    kept = Counter(sum(getattr(child, name) == getattr(parent, name) for name in names) for child in children)
    assert 0.15 < kept[0] / 400 < 0.35
    assert sum(kept[count] for count in (4, 5, 6)) / 400 > 0.5


def test_a_recipe_may_train_on_the_validation_part_as_well() -> None:
    held_out = TASK.with_recipe(DrawnRecipe(epochs=1.0))
    everything = TASK.with_recipe(DrawnRecipe(epochs=1.0, trains_on_all=True))
    assert sorted(held_out.training_indices.tolist()) == sorted(TASK.training_indices.tolist())
    assert sorted(everything.training_indices.tolist()) == list(range(400))
    assert torch.equal(everything.validation_indices, TASK.validation_indices)
    weights = []
    for task in (held_out, everything):
        torch.manual_seed(0)
        weights.append(task.train(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), seed=0)[1].weight.detach())
    assert not torch.equal(*weights)


def test_later_models_of_a_zoo_are_trained_as_the_owner_seems_to_be(monkeypatch) -> None:
    """An owner trained with heavily smoothed labels by small steps of SGD: later recipes smooth more than the first."""
    given = DrawnRecipe(epochs=20.0, optimizer="sgd", learning_rate=0.05, smoothing=0.2, trains_on_all=True)
    with isolated_rng(5):
        owner = TASK.with_recipe(given).train(HeadFirst(64, 10), seed=5)
    stages: list[tuple[bool, DrawnRecipe]] = []
    real = metav.zoo.stages.with_recipe

    def watched(planned, context, recipe_range, *, parents=(), **options):
        found = real(planned, context, recipe_range, parents=parents, **options)
        if planned.family == HOMOLOGOUS:
            stages.append((bool(parents), found.recipe))
        return found

    monkeypatch.setattr(metav.zoo.stages, "with_recipe", watched)
    build_zoo(owner, TASK, positives=2, negatives=24, families=["weight_noise"], architectures=[], progress=False)
    first, later = (
        [recipe.smoothing for inferred, recipe in stages if inferred is is_late] for is_late in (False, True)
    )
    assert len(first) >= 3
    assert len(later) >= 8
    assert np.mean(later) > np.mean(first) + 0.02
