"""How owners, thieves and honest suspects of the experiments train: plain loops that are told apart by what they do."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import bits, owner_of, task_of
from torch import nn

from metav.experiments.attacks.registry import ATTACKS
from metav.experiments.runs.judging import threshold_between
from metav.experiments.scenarios.digits import digits_scenario
from metav.experiments.scenarios.recipes.generator_loops import train_generator
from metav.experiments.scenarios.recipes.owner_recipe import recipes_for
from metav.experiments.scenarios.recipes.plain_loop import Loop, moved, steps_of, train_plainly
from metav.experiments.suspects.collection import build_test_suspects
from metav.experiments.suspects.honest import KINDRED_OTHER_DATA, all_recipes, plan_honest
from metav.experiments.suspects.nonsense import nonsense_suspects
from metav.experiments.suspects.plan import ATTACKED, SuspectCounts
from metav.models.running import predict
from metav.support.randomness import isolated_rng
from metav.zoo.plan import CLASSICAL, KINDRED, OTHER_ARCHITECTURE, OTHER_DATA, OTHER_RECIPE
from metav.zoo.told_recipes import check_recipe, told_model

TASKS = ("classification", "regression", "generation")
LOOPS = {
    "adam": Loop(epochs=2, rate=4e-3, batch=32),
    "sgd": Loop(epochs=2, rate=0.05, batch=32, optimizer="sgd", decay=1e-4, schedule="steps"),
    "long": Loop(epochs=3, rate=4e-3, batch=32, optimizer="adamw", smoothing=0.1, augmented=True, schedule="cosine"),
}


def recipes_of(name: str, loops: dict[str, Loop] = LOOPS):
    return recipes_for(task_of(name), lambda: copy.deepcopy(fresh(name)), loops)


def fresh(name: str) -> nn.Module:
    """An owner's class with initial weights of its own."""
    model = copy.deepcopy(owner_of(name))
    for part in model.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return model


@pytest.mark.parametrize("name", TASKS)
def test_a_recipe_gives_a_useful_model_by_its_seed_alone(name):
    task, recipe = task_of(name), recipes_of(name, {"adam": Loop(epochs=8, rate=6e-3, batch=32)})[0]
    short = replace(recipe, loop=replace(recipe.loop, epochs=0.3))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again, other = short(5), short(5), short(6)
    assert torch.equal(torch.get_rng_state(), state)
    assert bits(first) == bits(again) != bits(other)
    assert not first.training
    model, halfway = recipe(5), 0.5 * (task.baseline + task.metric(owner_of(name)))
    assert (task.metric(model) > halfway) if task.higher_is_better else (task.metric(model) < halfway)


def test_metav_takes_a_recipe_as_the_owners_and_another_loop_has_another_identity():
    recipe = recipes_of("classification")[0]
    told = told_model(recipe, 11, owner_of("classification"), task_of("classification"))
    assert bits(told) == bits(recipe(11))
    check_recipe(recipe, 1)
    changed = [
        replace(recipe, loop=replace(recipe.loop, rate=1e-3)),
        replace(recipe, inputs=recipe.inputs[:-1]),
        replace(recipe, start={"weight": np.zeros(1)}),
        recipe.on(task_of("classification").subset(range(50))),
    ]
    assert len({recipe.identity, *(entry.identity for entry in changed)}) == 5


def test_the_identity_of_a_recipe_is_the_same_in_another_process():
    code = "from metav.experiments.scenarios.digits import digits_scenario; print(digits_scenario(1).recipe.identity)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digits_scenario(1).recipe.identity


def test_each_owner_has_a_recipe_of_its_own_and_the_third_next_the_same():
    scenarios = [digits_scenario(number, epochs=1) for number in range(4)]
    names = [scenario.recipe.name for scenario in scenarios]
    assert len(set(names[:3])) == 3
    assert names[3] == names[0]
    for scenario in scenarios:
        assert scenario.recipe not in scenario.other_recipes
        assert len(scenario.other_recipes) == 2


def test_an_owner_from_a_public_base_stays_nearer_to_it_than_two_owners_are():
    scenario = digits_scenario(0, epochs=1).from_public_base()
    base = scenario.recipe.start
    owner, other = scenario.owner_of_recipe(), scenario.other_recipes[0](3)

    def distance(model: nn.Module) -> float:
        return float(sum(np.abs(tensor.numpy() - base[name]).sum() for name, tensor in model.state_dict().items()))

    scratch = digits_scenario(0, epochs=1).owner_of_recipe()
    assert distance(owner) < 0.5 * distance(scratch)
    assert distance(other) < distance(scratch)
    assert bits(owner) != bits(other)


def test_schedules_and_lengths_are_what_they_say():
    def rates(loop: Loop) -> list[float]:
        weight = nn.Parameter(torch.zeros(1))
        before, found = 0.0, []
        with isolated_rng(0):
            for _, step in steps_of(iter([weight]), 64, loop):
                step(weight.sum())
                found.append(before - float(weight.detach()))
                before = float(weight.detach())
        return found

    # plain gradient descent without momentum would be the rate itself: the first step is
    common = {"epochs": 2, "rate": 0.5, "batch": 16, "optimizer": "sgd"}
    constant, steps = rates(Loop(**common)), rates(Loop(**common, schedule="steps"))
    assert len(constant) == 8
    assert constant[0] == pytest.approx(0.5)
    assert steps[:4] == pytest.approx(constant[:4])
    assert steps[4] < 0.6 * constant[4]
    cosine = rates(Loop(**common | {"optimizer": "adam"}, schedule="cosine"))
    assert cosine == sorted(cosine, reverse=True)
    assert len(rates(Loop(epochs=0.25, rate=0.1, batch=16))) == 1


def test_a_batch_of_one_is_left_out():
    with isolated_rng(0):
        sizes = [
            len(batch)
            for batch, _ in steps_of(iter([nn.Parameter(torch.zeros(1))]), 33, Loop(epochs=2, rate=0.1, batch=16))
        ]
    assert sizes == [16] * 4


def test_moved_images_hold_the_same_pixels():
    images = torch.rand(4, 1, 8, 8)
    with isolated_rng(1):
        changed = [moved(images) for _ in range(8)]
    assert any(not torch.equal(entry, images) for entry in changed)
    for entry in changed:
        assert torch.equal(entry.flatten(1).sort().values, images.flatten(1).sort().values)


def test_a_student_learns_scores_or_labels_alone():
    task, teacher = task_of("classification"), owner_of("classification")
    inputs, targets = task.examples[:200], task.targets[:200]
    loop = Loop(epochs=20, rate=5e-3, batch=32)

    def student(labels_alone: bool) -> torch.Tensor:
        with isolated_rng(4):
            model = fresh("classification")
        # wrong targets: only the teacher can have taught it
        wrong = (targets + 1) % 10
        train_plainly(model, inputs, wrong, loop, answers="classes", seed=1, teacher=teacher, labels_alone=labels_alone)
        return predict(model, inputs)

    told = predict(teacher, inputs)
    for labels_alone in (False, True):
        answers = student(labels_alone)
        assert float((answers.argmax(1) == told.argmax(1)).float().mean()) > 0.9


def test_a_generator_against_a_judge_stays_finite_and_draws_no_constant():
    task = task_of("generation")
    model = fresh("generation")
    train_generator(
        model, task.examples, Loop(epochs=3, rate=5e-4, batch=32), latent=4, seed=0, objective="adversarial"
    )
    samples = predict(model, task.natural_queries(50, seed=0))
    assert bool(torch.isfinite(samples).all())
    assert float(samples.std(dim=0).max()) > 0.01


def test_thieves_with_loops_of_their_own_stand_in_the_table_of_attacks():
    own = [name for name in ATTACKS if name.startswith("loop_")]
    assert len(own) == 6
    assert all(ATTACKS[name].needs_training for name in own)


# Honest suspects.

COUNTS = {KINDRED: 3, KINDRED_OTHER_DATA: 2, OTHER_RECIPE: 8, OTHER_ARCHITECTURE: 10, OTHER_DATA: 5}


def test_honest_models_are_what_their_family_says_and_more_hold_the_fewer():
    def plan(counts: dict[str, int]):
        return plan_honest(counts, recipes=5, architectures=4, has_other_data=True, seed=2)

    planned = plan(COUNTS)
    by_family = {family: [entry for entry in planned if entry.family == family] for family in COUNTS}
    assert {family: len(entries) for family, entries in by_family.items()} == COUNTS
    assert len({entry.seed for entry in planned}) == len({entry.run for entry in planned}) == len(planned)
    assert {(entry.recipe, entry.data, entry.architecture) for entry in by_family[KINDRED]} == {(0, "owner", 0)}
    assert {(entry.recipe, entry.data) for entry in by_family[KINDRED_OTHER_DATA]} == {(0, "thief")}
    assert {entry.recipe for entry in by_family[OTHER_RECIPE]} == {1, 2, 3, 4}
    assert all(entry.architecture > 0 for entry in by_family[OTHER_ARCHITECTURE])
    assert {entry.data for entry in by_family[OTHER_ARCHITECTURE]} == {"owner", "thief"}
    assert {entry.data for entry in by_family[OTHER_DATA]} == {"other"}
    assert set(plan({family: 2 for family in COUNTS})) <= set(planned)


def test_what_cannot_be_trained_is_left_out():
    planned = plan_honest(COUNTS, recipes=5, architectures=1, has_other_data=False, seed=0)
    assert not {OTHER_ARCHITECTURE, OTHER_DATA} & {entry.family for entry in planned}


def test_other_loops_have_the_data_of_the_recipes_and_none_of_their_loops():
    recipes = all_recipes(recipes_of("classification"))
    assert len(recipes) == 5
    assert len({entry.loop for entry in recipes}) == 5
    assert all(entry.inputs is recipes[0].inputs for entry in recipes)


@pytest.fixture(scope="module")
def honest_suspects(tmp_path_factory: pytest.TempPathFactory):
    """Suspects of a small task, made twice with one cache; which families, and how many models were trained anew."""
    task, owner = task_of("classification").subset(range(200)), owner_of("classification")
    counts = SuspectCounts(
        rounds=1,
        families=("quantize",),
        attacks=("permute_neurons",),
        stacks=0,
        homologous=0,
        other_architecture=2,
        other_data=0,
        attacked=1,
        kindred=2,
        kindred_other_data=1,
        other_recipe=1,
        classical=2,
    )
    recipes = tuple(entry.on(task) for entry in recipes_of("classification"))
    cache = tmp_path_factory.mktemp("honest")
    options = {"scale": counts, "recipes": recipes, "cache": cache, "progress": False}
    first = build_test_suspects(owner, task, **options)
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*.safetensors")}
    again = build_test_suspects(owner, task, **options)
    after = {path: path.stat().st_mtime_ns for path in cache.glob("*.safetensors")}
    return first, again, before == after, recipes


def test_kindred_suspects_are_by_the_owners_recipe_and_come_back_from_the_cache(honest_suspects):
    first, again, unchanged, recipes = honest_suspects
    assert unchanged
    kindred = [entry for entry in first if entry.family == KINDRED]
    assert len(kindred) == 2
    for entry in kindred:
        assert bits(entry.model) == bits(recipes[0](entry.seed))
        assert not entry.is_positive
    assert [bits(entry.model) for entry in kindred] == [bits(entry.model) for entry in again if entry.family == KINDRED]


def test_all_kinds_of_honest_suspects_are_there_and_one_of_the_owners_recipe_is_attacked(honest_suspects):
    first = honest_suspects[0]
    families = {entry.family for entry in first.negatives}
    assert families == {KINDRED, KINDRED_OTHER_DATA, OTHER_RECIPE, OTHER_ARCHITECTURE, CLASSICAL, ATTACKED}
    assert not {entry.is_positive for entry in first.negatives} - {False}
    classical = [entry.model for entry in first if entry.family == CLASSICAL]
    assert len(classical) == 2
    assert len({type(model.estimator) for model in classical}) == 2


def test_nonsense_has_four_kinds_and_follows_its_seed():
    for name in TASKS:
        task, owner = task_of(name), owner_of(name)
        found, again = (nonsense_suspects(owner, task, [], count=2, seed=1) for _ in range(2))
        assert [family for _, _, family in found] == 2 * ["noise_new", "noise_fixed", "untrained", "constant"]
        queries = task.natural_queries(6, seed=0)
        answers = {family: model(queries).detach().flatten(1) for model, _, family in found[:4]}
        assert all(tuple(entry.shape) == (6, task.outputs) for entry in answers.values())
        by_name = {family: model for model, _, family in again[:4]}
        for family in ("noise_new", "noise_fixed", "untrained"):
            torch.testing.assert_close(by_name[family](queries).detach().flatten(1), answers[family])
        assert not torch.equal(by_name["noise_new"](queries), by_name["noise_new"](queries))
        assert torch.equal(by_name["noise_fixed"](queries), by_name["noise_fixed"](queries))
        assert 0 < float(answers["constant"].double().std(dim=0).max()) < 1e-6


def test_the_former_threshold_moves_up_with_derived_models_that_are_found_easily():
    negatives = np.linspace(-1.0, 0.0, 20)
    near, far = (threshold_between(np.linspace(low, low + 2.0, 10), negatives, 0.1) for low in (0.3, 6.0))
    assert near < far
    assert far == pytest.approx((6.0 - np.mean(negatives[-2:]) * -1) / 2, abs=0.05)
    assert threshold_between(np.array([0.0]), negatives, 0.1) == 0.1
