"""Told and drawn recipes in a zoo: who is trained by which, what is refused, and where the owner stands."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import copy
import inspect
import json
import random
import sys
import threading
import types
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import HeadFirst, bits, digits, owner_of, task_of
from torch import nn

import metav.zoo.stages
from metav.errors import InputError, ModelError, ZooError
from metav.fingerprinting import fingerprint
from metav.support.randomness import isolated_rng
from metav.tasks.classification import Classification
from metav.tasks.recipes import USUAL_RANGE
from metav.zoo.building import build_suspects, build_zoo
from metav.zoo.plan import (
    ANOTHER_ARCHITECTURE_OR_DATA,
    CLASSICAL,
    GIVEN,
    HOMOLOGOUS,
    KINDRED,
    OTHER_RECIPE,
    SHARES,
    plan_zoo,
)
from metav.zoo.stages import train_in_stages
from metav.zoo.standing import OwnerStanding, StandingRow, stretched

CHEAP = {"positives": 2, "families": ["weight_noise"], "architectures": [], "progress": False}


def small_task(epochs: float = 6) -> Classification:
    images, labels = digits()
    return Classification(images[:400], labels[:400], epochs=epochs, learning_rate=1e-2)


TASK = small_task()


def recipe(seed: int) -> nn.Module:
    """A loop of the user's own: plain Adam, seeded by hand from Python's, NumPy's and torch's global generators."""
    model = HeadFirst(64, 10)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    inputs, labels = TASK.examples[TASK.training_indices], TASK.targets[TASK.training_indices]
    for _ in range(60):
        chosen = torch.randperm(len(inputs))[:64]
        loss = nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        model.head.bias += 1e-6 * (random.random() + np.random.rand())
    return model


@pytest.fixture(scope="module")
def owner():
    with isolated_rng(1):
        return recipe(1)


def contents(zoo):
    return [(entry.family, entry.run, entry.share, entry.seed, entry.metric, bits(entry.model)) for entry in zoo]


@settings(max_examples=60, deadline=None)
@given(negatives=st.integers(1, 140), architectures=st.integers(1, 3))
def test_kindred_models_are_at_least_half_of_every_share(negatives, architectures):
    planned = [
        model
        for model in plan_zoo(
            TASK,
            positives=1,
            negatives=negatives,
            architectures=architectures,
            seed=0,
            snapshots=2,
            families=None,
            shares=None,
            suspects=False,
            leading=(KINDRED,),
            others=(HOMOLOGOUS, *ANOTHER_ARCHITECTURE_OR_DATA),
        )
        if not model.is_positive
    ]
    assert len(planned) == negatives
    for share in SHARES:
        kindred = sum(model.family == KINDRED for model in planned if model.share == share)
        assert 2 * kindred >= sum(model.share == share for model in planned)
    assert len({model.run for model in planned}) == len({model.seed for model in planned}) == negatives
    if negatives >= 20:
        assert {model.family for model in planned} == {KINDRED, HOMOLOGOUS, "independent_other_data"} | (
            {"independent_other_architecture"} if architectures > 1 else set()
        )


def test_a_told_recipe_is_called_with_other_seeds_and_its_models_are_in_all_shares(owner):
    seeds = []

    def counted(seed):
        seeds.append(seed)
        return recipe(seed)

    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    zoo = build_zoo(owner, TASK, negatives=8, recipe=counted, **CHEAP)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    kindred = [entry for entry in zoo if entry.family == KINDRED]
    assert len(kindred) == len(seeds) == len(set(seeds)) == 5
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert {entry.share for entry in kindred} == set(SHARES)
    assert all(isinstance(entry.model, HeadFirst) and not entry.model.training for entry in kindred)
    assert zoo.standing.recipe == "told"
    assert zoo.standing.models == 5


def test_told_models_depend_on_neither_jobs_nor_cache(owner, tmp_path):
    options = {"negatives": 4, "recipe": recipe, **CHEAP}
    alone = contents(build_zoo(owner, TASK, **options))
    assert contents(build_zoo(owner, TASK, jobs=2, **options)) == alone
    assert contents(build_zoo(owner, TASK, cache=tmp_path, **options)) == alone
    count = len(list(tmp_path.iterdir()))
    again = build_zoo(owner, TASK, cache=tmp_path, **options)
    assert contents(again) == alone
    assert len(list(tmp_path.iterdir())) == count


def test_code_that_workers_cannot_import_travels_with_its_module(owner, monkeypatch):
    module = types.ModuleType("nowhere_to_be_found")
    vars(module).update({name: globals()[name] for name in ("HeadFirst", "TASK", "nn", "np", "random", "torch")})
    exec("def network():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n", vars(module))
    exec(inspect.getsource(recipe), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    options = CHEAP | {"negatives": 4, "recipe": module.recipe, "architectures": [module.network]}
    assert contents(build_zoo(owner, TASK, jobs=2, **options)) == contents(build_zoo(owner, TASK, **options))


def wide(seed):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


class Squared(HeadFirst):
    def forward(self, inputs):
        return super().forward(inputs) ** 2


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda seed: 3, ModelError, r"recipe\(\d+\) returns int, expected a trained torch\.nn\.Module"),
        (lambda seed: 1 // 0, ModelError, r"recipe\(\d+\) failed \(ZeroDivisionError"),
        (wide, ModelError, r"head\.weight has shape None, expected \(10, 24\).*of the owner's own class"),
        (lambda seed: HeadFirst(64, 12), ModelError, r"head\.weight has shape \(12, 24\), expected \(10, 24\)"),
        (lambda seed: Squared(64, 10), ModelError, "answers otherwise than the owner's HeadFirst"),
        (lambda seed: HeadFirst(64, 10), ZooError, r"the last of 3 seeds tried, has accuracy 0\.\d+, expected at"),
        (3, InputError, "recipe must be a callable from a seed"),
        (HeadFirst(64, 10), InputError, "go into independent="),
    ],
)
def test_recipes_that_cannot_serve_are_refused(wrong, error, message, owner):
    with pytest.raises(error, match=message):
        build_zoo(owner, TASK, negatives=2, recipe=wrong, **CHEAP)


def test_a_single_weak_model_of_a_recipe_gives_way_to_that_of_another_seed(owner):
    seeds = []

    def mostly(seed):
        seeds.append(seed)
        return HeadFirst(64, 10) if len(seeds) == 1 else recipe(seed)

    zoo = build_zoo(owner, TASK, negatives=2, recipe=mostly, jobs=1, **CHEAP)
    kindred = [entry for entry in zoo.negatives if entry.family == KINDRED]
    assert len(set(seeds)) == len(seeds) == len(kindred) + 1
    assert min(entry.metric for entry in kindred) > 0.5


def test_a_recipe_that_returns_the_owner_is_refused(owner):
    with pytest.raises(ZooError, match="returns the owner's own model"):
        build_zoo(owner, TASK, negatives=2, recipe=lambda seed: copy.deepcopy(owner), **CHEAP)


def test_a_recipe_that_ignores_its_seed_is_refused(owner):
    def fixed(seed):
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        return recipe(seed)

    with pytest.raises(ZooError, match=r"the same model for seeds \d+ and \d+: use its seed"):
        build_zoo(owner, TASK, negatives=4, recipe=fixed, **CHEAP)


def test_a_recipe_that_cannot_travel_runs_in_this_process_alone(owner):
    lock = threading.Lock()

    def locked(seed):
        with lock:
            return recipe(seed)

    with pytest.raises(InputError, match=r"the recipe cannot be sent to worker processes .* use jobs=1"):
        build_zoo(owner, TASK, negatives=2, recipe=locked, jobs=2, **CHEAP)
    assert len(build_zoo(owner, TASK, negatives=2, recipe=locked, **CHEAP).negatives) == 2


def test_models_that_the_user_has_are_spread_over_the_shares(owner):
    others = [recipe(seed) for seed in range(2, 6)]
    before = [bits(model) for model in others]
    zoo = build_zoo(owner, TASK, negatives=2, independent=others, **CHEAP)
    given_ = [entry for entry in zoo if entry.family == GIVEN]
    assert len(given_) == 4
    assert {entry.share for entry in given_} == set(SHARES)
    assert not any(entry.is_positive or entry.model.training for entry in given_)
    assert zoo.summary()["negatives"] == 6
    assert [bits(model) for model in others] == before
    assert [bits(entry.model) for entry in given_] == before


def test_models_that_are_not_independent_are_refused(owner):
    other = recipe(2)
    for models, error, message in (
        ([copy.deepcopy(owner)], ZooError, r"independent\[0\] is the owner's own model"),
        ([other, other], ZooError, r"independent\[1\] is the same model as independent\[0\]"),
        ([HeadFirst(64, 10)], ZooError, r"independent\[0\] has accuracy"),
        ([HeadFirst(64, 3)], ModelError, r"independent\[0\] does not fit the task"),
        ([3], ModelError, r"independent\[0\] must be a torch\.nn\.Module"),
        (other, InputError, "independent must be a list"),
    ):
        with pytest.raises(error, match=message):
            build_zoo(owner, TASK, negatives=2, independent=models, **CHEAP)


def test_without_a_told_recipe_every_independent_model_has_one_of_its_own(owner, monkeypatch):
    plans = []
    monkeypatch.setattr(
        "metav.zoo.trained_models.train_in_stages",
        lambda *args, **options: plans.append(train_in_stages(*args, **options)) or plans[-1],
    )
    zoo = build_zoo(owner, TASK, positives=28, negatives=24, progress=False)
    recipes = [planned.recipe for planned in plans[0].plan if not planned.is_positive]
    assert None not in recipes
    assert len(set(recipes)) == 24
    derived = [planned for planned in plans[0].plan if planned.is_positive and planned.family != "weight_noise"]
    assert 6 <= sum(planned.recipe is not None for planned in derived) <= 16
    assert zoo.standing.recipe == "drawn"
    assert zoo.standing.models == 12
    assert json.loads(json.dumps(zoo.summary()))["standing"]["covered"] == zoo.standing.covered


def test_a_range_that_does_not_reach_the_owner_is_stretched_for_the_models_to_come(tmp_path):
    """An owner that is trained ten times as long as the task."""
    with isolated_rng(2):
        long = small_task(epochs=60).train(HeadFirst(64, 10), seed=2)
    options = {"negatives": 24, "cache": tmp_path, **CHEAP}
    zoo = build_zoo(long, TASK, **options)
    assert zoo.standing.stretches >= 1
    assert zoo.standing.to_dict()["models"] == 12
    again = build_zoo(long, TASK, **options)
    assert contents(again) == contents(zoo)
    assert again.standing == zoo.standing
    assert build_zoo(long, TASK, **{**options, "cache": None}).standing == zoo.standing


def row(quantity, part, owner, lowest=0.0, highest=1.0):
    return StandingRow(quantity=quantity, part=part, owner=owner, lowest=lowest, median=0.5, highest=highest)


def standing(*rows):
    return OwnerStanding(rows=rows, models=8, recipe="drawn")


def test_a_range_is_stretched_to_where_the_owner_stands():
    inside = standing(row("confidence", "training", 0.5), row("loss", "training", 1.1))
    assert inside.covered
    assert stretched(USUAL_RANGE, inside, TASK) == USUAL_RANGE
    confident = stretched(USUAL_RANGE, standing(row("confidence", "training", 1.5)), TASK)
    assert confident.longest > USUAL_RANGE.longest
    assert confident.smoothed == USUAL_RANGE.smoothed
    soft = stretched(USUAL_RANGE, standing(row("confidence", "training", -0.5), row("metric", "training", 1.0)), TASK)
    assert soft.smoothed > USUAL_RANGE.smoothed
    assert soft.augmented > USUAL_RANGE.augmented
    weak = stretched(USUAL_RANGE, standing(row("loss", "training", 1.5), row("metric", "training", -0.5)), TASK)
    assert weak.shortest < USUAL_RANGE.shortest
    assert weak.longest == USUAL_RANGE.longest


@pytest.mark.parametrize("name", ["classification", "regression", "generation"])
def test_all_kinds_of_task_have_suspects_by_other_recipes(name):
    suspects = build_suspects(owner_of(name), task_of(name), negatives=8, **CHEAP)
    families = Counter(entry.family for entry in suspects.negatives)
    assert families[OTHER_RECIPE] == 4
    assert families[HOMOLOGOUS] >= 1
    assert families[CLASSICAL] == (0 if name == "generation" else 1)
    assert suspects.standing is None
    assert {entry.share for entry in suspects} == {"test"}
    task = task_of(name)
    for entry in suspects.negatives:
        if entry.family == CLASSICAL:
            assert entry.metric == pytest.approx(task.metric(entry.model))
            assert task.higher_is_better == (entry.metric > task.baseline)


def test_suspects_by_the_told_recipe_are_no_models_of_the_zoo(owner):
    options = {"negatives": 6, "recipe": recipe, **CHEAP}
    zoo, suspects = build_zoo(owner, TASK, **options), build_suspects(owner, TASK, **options)
    told = [{str(bits(entry.model)) for entry in models if entry.family == KINDRED} for models in (zoo, suspects)]
    assert all(told)
    assert not told[0] & told[1]


def test_a_recipe_is_for_a_zoo_that_is_still_to_be_built(owner):
    zoo = build_zoo(owner, TASK, negatives=2, **CHEAP)
    with pytest.raises(InputError, match="recipe is for a zoo that is still to be built"):
        fingerprint(owner, TASK, zoo=zoo, recipe=recipe)
    with pytest.raises(InputError, match="independent are for a zoo that is still to be built"):
        fingerprint(owner, TASK, zoo=zoo, independent=[recipe(3)])


def test_recipes_that_make_a_model_useless_give_way_to_the_tasks_own(owner, monkeypatch):
    monkeypatch.setattr(metav.zoo.stages, "USUAL_RANGE", replace(USUAL_RANGE, rate_factor=1e12))
    zoo = build_zoo(owner, TASK, negatives=6, **CHEAP)
    assert all(entry.metric > 0.5 * TASK.metric(owner) for entry in zoo.negatives if entry.fraction == 1.0)


def test_models_of_drawn_recipes_fit_their_data_about_as_well_as_the_owner_fits_its_own(owner):
    """What is worse than the owner's model, or better, could be told from it by that alone."""
    zoo = build_zoo(owner, TASK, negatives=12, seed=3, **CHEAP)
    wanted = TASK.lack_of_fit(owner)
    finished = [entry for entry in zoo if entry.family == HOMOLOGOUS and entry.fraction == 1.0]
    fits = np.array([TASK.lack_of_fit(entry.model) for entry in finished])
    assert len(fits) == 6
    assert (fits > 0.3 * wanted).all()
    assert (fits < 6 * wanted).all()  # by the task's lengths, up to twenty times
