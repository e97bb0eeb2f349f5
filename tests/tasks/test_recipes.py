"""Recipes: a task trains by them, what they leave out is as the task has it, and the defaults train what they did."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import HeadFirst, bits, digits, task_of
from torch import nn

from metav.errors import InputError
from metav.models.recipe import DrawnRecipe
from metav.models.training import TrainingOptions, fit, rate_factor, shuffled_batches
from metav.support.randomness import derive_seed, isolated_rng, single_thread
from metav.tasks.augmentations import shifted
from metav.tasks.classification import Classification
from metav.tasks.recipes import SGD_RATE, SUSPECT_RANGE, USUAL_RANGE, RecipeRange, draw_recipe
from metav.tasks.user_tasks import as_task

NAMES = ("classification", "regression", "generation")


def fresh(outputs: int = 10) -> nn.Module:
    with isolated_rng(3):
        return HeadFirst(64, outputs)


def small_task(**options) -> Classification:
    images, labels = digits()
    return Classification(images[:200], labels[:200], epochs=3, **options)


def test_the_default_options_train_what_they_always_did():
    """The loop of the first version, written out once more."""
    task, model = small_task(), fresh()
    expected = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(expected.parameters(), lr=2e-3, weight_decay=1e-4, fused=True)
    generator = torch.Generator().manual_seed(derive_seed(5, "shuffle"))
    inputs, labels = task.examples[task.training_indices], task.targets[task.training_indices]
    steps = len(shuffled_batches(len(inputs), 64, torch.Generator()))
    with single_thread():
        for epoch in range(3):
            for index, batch in enumerate(shuffled_batches(len(inputs), 64, generator)):
                optimizer.param_groups[0]["lr"] = 2e-3 * rate_factor(epoch * steps + index, 3 * steps)
                loss = nn.functional.nll_loss(nn.functional.log_softmax(expected(inputs[batch]), dim=1), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    task.train(model, seed=5)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name])


@pytest.mark.parametrize("name", NAMES)
def test_options_that_are_the_defaults_do_not_show_in_a_digest(name):
    task = task_of(name)
    assert task.options.unusual() == {}
    assert not {"optimizer", "schedule", "smoothing", "augmentation"} & set(task._described())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**62), name=st.sampled_from(NAMES), wide=st.booleans())
def test_recipes_stay_within_their_range(seed, name, wide):
    task, limits = task_of(name), SUSPECT_RANGE if wide else USUAL_RANGE
    recipe = draw_recipe(task, seed, limits)
    assert recipe == draw_recipe(task, seed, limits)
    assert limits.shortest <= recipe.epochs / task.epochs * (1 + 1e-9)
    assert recipe.epochs / task.epochs <= limits.longest * (1 + 1e-9)
    assert limits.least_part <= recipe.part <= 1.0
    factor = SGD_RATE if recipe.optimizer == "sgd" else 1.0
    assert abs(math.log(recipe.learning_rate / factor / task.options.learning_rate)) <= math.log(
        limits.rate_factor
    ) / 2 * (1 + 1e-9)
    assert 2 <= recipe.batch_size <= len(task.examples) // 8
    assert 0.0 <= recipe.smoothing <= 0.2
    if name == "generation":
        assert (recipe.optimizer, recipe.schedule, recipe.weight_decay, recipe.augmentation) == (None,) * 4
    if name != "classification":
        assert recipe.smoothing == 0.0
    options = task.with_recipe(recipe).options
    assert (options.epochs, options.batch_size) == (recipe.epochs, recipe.batch_size)


def test_recipes_cost_about_as_much_as_the_task_and_differ_in_everything():
    task = task_of("classification")
    recipes = [draw_recipe(task, seed) for seed in range(800)]
    lengths = np.array([recipe.epochs / task.epochs for recipe in recipes])
    assert 0.8 < np.exp(np.log(lengths).mean()) < 1.25
    assert np.mean(lengths * [recipe.part for recipe in recipes]) < 1.15
    assert {recipe.optimizer for recipe in recipes} == {"adam", "sgd"}
    assert {recipe.schedule for recipe in recipes} == {"constant", "cosine"}
    assert 0.3 < np.mean([recipe.smoothing > 0 for recipe in recipes]) < 0.5
    assert 0.25 < np.mean([recipe.augmentation == "shift" for recipe in recipes]) < 0.42
    assert len({recipe.batch_size for recipe in recipes}) > 20


def test_a_longer_range_changes_nothing_but_length():
    task = task_of("classification")
    wide = replace(USUAL_RANGE, longest=8.0)
    for seed in range(30):
        first, second = draw_recipe(task, seed), draw_recipe(task, seed, wide)
        assert replace(second, epochs=first.epochs) == first
        assert second.epochs >= first.epochs


@pytest.mark.parametrize("name", NAMES)
def test_a_task_with_a_recipe_has_an_identity_of_its_own_and_keeps_the_recipe_on_other_data(name):
    task = task_of(name)
    for change in ({"learning_rate": 1e-3}, {"optimizer": "sgd"}, {"schedule": "constant"}, {"epochs": 2.0}):
        recipe = DrawnRecipe(**{"epochs": task.epochs, **change})
        assert task.with_recipe(recipe).digest() != task.digest()
    part = task.with_recipe(DrawnRecipe(epochs=2.0, optimizer="sgd", part=0.5, seed=3))
    assert len(part.examples) == pytest.approx(len(task.examples) / 2, abs=10)
    assert part.subset([0, 1, 2]).options.optimizer == "sgd"
    assert task.options.optimizer == "adamw"
    assert task.with_recipe(DrawnRecipe(epochs=task.epochs)).digest() == task.digest()


@pytest.mark.parametrize(
    "change",
    [
        *({"optimizer": "adam"}, {"optimizer": "sgd"}, {"schedule": "constant"}, {"schedule": "cosine"}),
        *({"smoothing": 0.2}, {"augmentation": "shift"}, {"augmentation": "noise"}, {"weight_decay": 0.1}),
    ],
)
def test_everything_that_a_recipe_says_changes_the_training(change):
    task = small_task()
    plain = task.train(fresh(), seed=1)
    state = torch.get_rng_state()
    changed = task.with_recipe(DrawnRecipe(epochs=3, **change))
    first, second = changed.train(fresh(), seed=1), changed.train(fresh(), seed=1)
    assert bits(first) == bits(second) != bits(plain)
    assert torch.equal(torch.get_rng_state(), state)
    taught = changed.train(fresh(), seed=1, teacher=plain)
    assert all(torch.isfinite(tensor).all() for tensor in taught.state_dict().values())


def test_smoothed_labels_give_the_loss_of_pytorch():
    task = small_task()
    options = replace(task.options, smoothing=0.15)
    outputs = torch.randn(9, 10, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.cross_entropy(outputs, task.targets[:9], label_smoothing=0.15)
    assert float(task._true_loss(outputs, task.targets[:9], options)) == pytest.approx(float(expected), rel=1e-6)


def test_gradient_descent_has_momentum_and_a_constant_rate():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    model = nn.Module()
    model.weight = weight
    options = TrainingOptions(epochs=2, batch_size=4, learning_rate=0.1, optimizer="sgd", schedule="constant")
    fit(model, lambda indices: weight.square().sum() / 2, count=4, options=options, seed=0, parameters=[weight])
    # velocity 1, then 0.9 + 0.9: 1 - 0.1 - 0.18
    assert weight.item() == pytest.approx(0.72)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_shifted_images_are_the_images_moved_by_a_pixel_at_most(seed):
    torch.manual_seed(seed)
    images = torch.rand(3, 2, 5, 6)
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    moves = [padded[:, :, y : y + 5, x : x + 6] for y in range(3) for x in range(3)]
    for index, image in enumerate(shifted(images)):
        assert any(torch.equal(image, move[index]) for move in moves)


class OwnLoop(Classification):
    """A training loop of the user's own."""

    def train(self, model, *, seed, teacher=None, parameters=None, epochs=None):
        self.asked = epochs
        return super().train(model, seed=seed, teacher=teacher, parameters=parameters, epochs=epochs)


class OwnObject:
    """A task by duck typing, which says how many epochs it takes."""

    name, input_shape, lower, upper, epochs = "segmentation", (1, 8, 8), torch.zeros(1), torch.ones(1), 6

    def train(self, model, *, seed, epochs=None):
        self.asked = epochs
        return model

    def bootstrap(self, seed, fraction=0.5):
        return self

    def digest(self):
        return "mine"

    loss = metric = natural_queries = None


def test_a_loop_of_ones_own_changes_in_length_and_data_alone():
    images, labels = digits()
    task = OwnLoop(images[:200], labels[:200], epochs=3)
    recipe = draw_recipe(task, 1)
    assert recipe == DrawnRecipe(epochs=recipe.epochs, part=recipe.part, seed=recipe.seed)
    part = task.with_recipe(replace(recipe, optimizer="sgd"))
    assert part.options == replace(task.options, epochs=recipe.epochs)
    assert len(part.examples) < 200


def test_an_object_of_the_users_is_asked_for_another_number_of_epochs():
    given = OwnObject()
    given.loss = given.metric = given.natural_queries = lambda *_: 0
    task = as_task(given)
    other = task.with_recipe(DrawnRecipe(epochs=2.5, part=0.7))
    other.train(nn.Linear(1, 1), seed=0)
    assert given.asked == other.epochs == 2.5
    assert other.digest() != task.digest()
    task.train(nn.Linear(1, 1), seed=0)
    assert given.asked is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "optimizer must be one of adamw, adam, sgd, got 'lion'"),
        ({"schedule": "steps"}, "schedule must be one of"),
        ({"augmentation": "flip"}, "augmentation must be one of None, shift, noise"),
        ({"smoothing": 1.0}, r"smoothing must lie in \[0, 1\)"),
        ({"epochs": -1.0}, "epochs must be a finite number above 0"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        small_task().with_recipe(DrawnRecipe(**{"epochs": 1.0, **change}))


def test_a_range_is_a_value():
    assert RecipeRange() == USUAL_RANGE
    assert len({USUAL_RANGE, SUSPECT_RANGE}) == 2
