"""The test suspects of an experiment: what they are, that they are reproducible, and what they are still good for."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import copy
import json
import random

import numpy as np
import pytest
import torch
from small_fingerprints import make_fingerprint
from small_models import HeadFirst, ResidualCNN, bits, digits, owner_of, task_of
from torch import Tensor, nn

import metav
import metav.experiments.suspects.training
from metav.errors import InputError, ModelError
from metav.experiments.attacks.registry import ATTACKS
from metav.experiments.scenarios.architectures.digits import digits_smooth_cnn
from metav.experiments.suspects.collection import build_test_suspects, usefulness_lost
from metav.experiments.suspects.plan import ATTACKED, STACKED, SUSPECT_COUNTS, SuspectCounts, plan_suspects
from metav.models.running import predict
from metav.obfuscations.registry import OBFUSCATIONS
from metav.support.randomness import isolated_rng
from metav.tasks.classification import Classification
from metav.zoo.building import build_suspects
from metav.zoo.plan import HOMOLOGOUS, KINDRED, OTHER_ARCHITECTURE, OTHER_DATA, plan_zoo

TASKS = ("classification", "regression", "generation")

SMALL = SuspectCounts(
    rounds=1,
    families=("weight_prune", "distill_same"),
    attacks=("unlearn_fingerprint", "knockoff", "permute_neurons", "jbda"),
    stacks=1,
    homologous=2,
    other_architecture=1,
    other_data=1,
    attacked=2,
)


@pytest.fixture(scope="module")
def task() -> Classification:
    images, labels = digits()
    return Classification(images[:400], labels[:400], epochs=6, learning_rate=1e-2, bounds=(0.0, 1.0))


@pytest.fixture(scope="module")
def owner(task) -> nn.Module:
    with isolated_rng(1):
        model = HeadFirst(64, 10)
    return task.train(model, seed=1)


def options(**changes):
    """Options of a quick build."""
    queries = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    defaults = {"architectures": [lambda: ResidualCNN(4)], "scale": SMALL, "queries": queries, "progress": False}
    return {**defaults, **changes}


@pytest.fixture
def trainings(monkeypatch):
    """The runs trained in this process."""
    runs, train = [], metav.experiments.suspects.training.train_suspect

    def counted(planned, context):
        content = train(planned, context)
        runs.append(planned.run)
        return content

    monkeypatch.setattr("metav.experiments.suspects.collection.train_suspect", counted)
    return runs


def contents(collection):
    return [
        (entry.run, entry.family, entry.attacks, entry.strength, entry.seed, entry.metric, bits(entry.model))
        for entry in collection
    ]


@pytest.fixture(scope="module")
def collection(owner, task):
    return build_test_suspects(owner, task, **options())


def planned(name: str, scale: str, *, leaked: bool = True, architectures_: int = 5, recipes: int = 5):
    return plan_suspects(
        owner_of(name),
        task_of(name),
        SUSPECT_COUNTS[scale],
        architectures=architectures_,
        seed=0,
        leaked=leaked,
        recipes=recipes,
        has_other_data=True,
    )


@pytest.mark.parametrize("name", TASKS)
def test_the_paper_scale_has_all_families_and_a_hundred_homologous_negatives(name):
    task, plan = task_of(name), planned(name, "paper")
    runs = list(plan.runs)
    assert len({entry.run for entry in runs}) == len({entry.seed for entry in runs}) == len(runs)
    positives = [entry for entry in runs if entry.is_positive]
    assert len(positives) >= (60 if name == "generation" else 70)
    families = {family for family, entry in OBFUSCATIONS.items() if entry.supports(task)}
    attacks = {family for family, entry in ATTACKS.items() if entry.supports(task)}
    assert {entry.family for entry in positives} == families | attacks | {STACKED}
    for family in families:
        strengths = {entry.strength for entry in plan.plain if entry.family == family}
        assert strengths == set(OBFUSCATIONS[family].suspect_strengths)
    count = {family: sum(entry.family == family for entry in runs) for family in (HOMOLOGOUS, ATTACKED)}
    assert count[HOMOLOGOUS] >= 30
    assert sum(entry.family == KINDRED for entry in runs) >= 100
    assert {entry.attacks[0] for entry in plan.attacks if entry.family == ATTACKED} == families
    assert all((entry.base is None) == entry.is_positive for entry in plan.attacks)
    others = {entry.architecture for entry in plan.attacks if entry.family == "extract_scores_other"}
    assert others == {1, 2, 3, 4}


@pytest.mark.parametrize("name", TASKS)
def test_the_smoke_scale_is_about_twelve_of_each_kind(name):
    plan = planned(name, "smoke", recipes=0)
    runs = [*plan.plain, *plan.attacks]
    assert sum(entry.is_positive for entry in runs) == 12
    assert sum(not entry.is_positive for entry in runs) == 12
    assert any(entry.family == STACKED for entry in runs)


def test_a_larger_scale_holds_the_runs_of_a_smaller_one_and_no_surrogate():
    small, paper = planned("classification", "small"), planned("classification", "paper")
    assert set(small.plain) <= set(paper.plain)
    single = [entry for entry in small.attacks if entry.family != ATTACKED]
    assert set(single) <= set(paper.attacks)
    zoo = plan_zoo(
        task_of("classification"),
        positives=192,
        negatives=192,
        architectures=5,
        seed=0,
        snapshots=2,
        families=None,
        shares=None,
        suspects=False,
    )
    assert not {entry.seed for entry in zoo} & {entry.seed for entry in (*paper.plain, *paper.attacks)}
    assert not {(entry.family, entry.strength) for entry in zoo if entry.is_positive} & {
        (entry.family, entry.strength) for entry in paper.plain
    }


def test_what_cannot_be_made_is_left_out():
    names = {entry.family for entry in planned("classification", "paper", leaked=False).attacks}
    assert "unlearn_fingerprint" not in names
    alone = planned("classification", "paper", architectures_=1)
    assert "extract_labels_other" not in {entry.family for entry in alone.attacks}
    assert all(entry.architecture == 0 for entry in (*alone.plain, *alone.attacks))
    # GELU is no ReLU: no unit of this owner can be rescaled, and none could be moved in a linear model.
    with isolated_rng(0):
        smooth = digits_smooth_cnn()
    plan = plan_suspects(
        smooth, task_of("classification"), SUSPECT_COUNTS["paper"], architectures=2, seed=0, leaked=False
    )
    names = {entry.family for entry in plan.attacks}
    assert "rescale_neurons" not in names
    assert "permute_neurons" in names


def test_suspects_carry_labels_attacks_and_usefulness(collection, owner, task):
    assert (len(collection.positives), len(collection.negatives)) == (7, 6)
    assert [entry.is_positive for entry in collection] == [True] * 7 + [False] * 6
    assert {entry.family for entry in collection.negatives} == {HOMOLOGOUS, OTHER_ARCHITECTURE, OTHER_DATA, ATTACKED}
    for entry in collection:
        model, is_positive, family = entry
        assert (model, is_positive, family) == (entry.model, entry.is_positive, entry.family)
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert entry.metric == pytest.approx(task.metric(model))
        assert entry.lost == pytest.approx(1.0 - task.metric(model) / task.metric(owner))
        assert entry.useful == (entry.lost <= 0.1)
        assert bool(entry.attacks) == (is_positive or family == ATTACKED)
    assert set(collection.shipped) | set(collection.apart) == set(collection)
    assert not set(collection.shipped) & set(collection.apart)
    summary = json.loads(json.dumps(collection.summary()))
    assert sum(row["count"] for row in summary["families"].values()) == len(collection) == 13


def test_the_attacks_are_what_they_are_called(collection, owner, task):
    by_family = {entry.family: entry.model for entry in collection}
    queries, inputs = options()["queries"], task.examples[task.validation_indices]

    def same(model: nn.Module, given: Tensor) -> float:
        return float((predict(model, given).argmax(1) == predict(owner, given).argmax(1)).float().mean())

    permuted = by_family["permute_neurons"]
    assert torch.allclose(predict(permuted, inputs), predict(owner, inputs), atol=1e-5)
    assert not torch.equal(permuted.body.weight, owner.body.weight)
    unlearned = by_family["unlearn_fingerprint"]
    assert same(unlearned, queries) < same(unlearned, inputs) - 0.2
    assert same(by_family["knockoff"], inputs) > 0.5
    attacked = [entry for entry in collection if entry.family == ATTACKED]
    bases = [entry.model for entry in collection if entry.family == HOMOLOGOUS]
    pruned = next(entry.model for entry in attacked if entry.attacks == ("weight_prune",))
    gone = pruned.body.weight == 0
    assert float(gone.float().mean()) > 0.1
    assert any(torch.equal(base.body.weight[~gone], pruned.body.weight[~gone]) for base in bases)


def test_what_has_lost_its_use_stands_apart(owner, task):
    images, labels = digits()
    test = Classification(images[400:700], labels[400:700], validation=0.0, classes=10)
    # No suspect is exactly as good as the owner on 300 images that neither saw.
    strict = build_test_suspects(owner, task, **options(test_task=test, allowed_loss=0.0))
    for entry in strict:
        assert entry.metric == pytest.approx(test.metric(entry.model))
    assert strict.owner_metric == pytest.approx(test.metric(owner))
    assert strict.apart
    assert all(entry.is_positive and entry.metric < strict.owner_metric for entry in strict.apart)
    assert set(strict.negatives) <= set(strict.shipped)


@pytest.mark.parametrize(
    ("name", "better", "worse"),
    [("classification", 0.75, 0.6), ("regression", 0.44, 0.6), ("generation", 0.44, 0.6)],
)
def test_usefulness_is_a_share_of_accuracy_of_error_or_of_the_advance_over_a_constant(name, better, worse):
    task = copy.copy(task_of(name))
    task.baseline = 0.9
    owner, expected = {
        "classification": (0.8, ((0.8 - better) / 0.8, (0.8 - worse) / 0.8)),
        "regression": (0.4, (0.04 / 0.4, 0.2 / 0.4)),
        "generation": (0.4, (0.04 / 0.5, 0.2 / 0.5)),
    }[name]
    found = (usefulness_lost(task, owner, better), usefulness_lost(task, owner, worse))
    assert found == pytest.approx(expected)
    assert usefulness_lost(task, owner, owner) == 0.0
    assert usefulness_lost(task, owner, float("nan")) == float("inf")


def test_owner_inputs_and_random_state_are_untouched(owner, task):
    model = copy.deepcopy(owner).double().train()
    model.body.weight.requires_grad_(False)
    before, given = copy.deepcopy(model), options()
    queries, examples, digest = given["queries"].clone(), task.examples.clone(), task.digest()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_num_threads()
    build_test_suspects(model, task, **{**given, "scale": SUSPECT_COUNTS["smoke"]})
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert (random.getstate(), torch.get_num_threads()) == states[2:]
    assert bits(model) == bits(before)
    assert model.body.weight.dtype == torch.float64
    assert [module.training for module in model.modules()] == [module.training for module in before.modules()]
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]
    assert torch.equal(given["queries"], queries)
    assert torch.equal(task.examples, examples)
    assert task.digest() == digest
    assert task.options.epochs == 6


def test_neither_cache_nor_jobs_change_a_bit_and_nothing_is_trained_twice(
    owner, task, tmp_path, collection, monkeypatch, trainings
):
    first = build_test_suspects(owner, task, **options(cache=tmp_path))
    assert len(trainings) == 13
    again = build_test_suspects(owner, task, **options(cache=tmp_path))
    assert len(trainings) == 13
    lost = sorted(tmp_path.glob("*.safetensors"))[::5]
    for path in lost:
        path.unlink()
    mended = build_test_suspects(owner, task, **options(cache=tmp_path))
    assert len(trainings) == 13 + len(lost)
    monkeypatch.undo()
    together = build_test_suspects(owner, task, **options(jobs=2))
    assert contents(first) == contents(again) == contents(mended) == contents(together) == contents(collection)
    assert not list(tmp_path.glob(".*"))


def test_only_what_depends_on_a_change_is_trained_again(owner, task, tmp_path, trainings):
    build_test_suspects(owner, task, **options(cache=tmp_path))
    trainings.clear()
    build_test_suspects(owner, task, **options(cache=tmp_path, queries=options()["queries"] + 0.01))
    assert trainings == ["suspects-0/unlearn_fingerprint/0"]
    trainings.clear()
    build_test_suspects(owner, task, **options(cache=tmp_path, seed=1))
    assert len(trainings) == 13
    changed = copy.deepcopy(owner)
    changed.body.bias.data[0] += 1e-3
    trainings.clear()
    build_test_suspects(changed, task, **options(cache=tmp_path))
    assert len(trainings) == 13


def test_plain_suspects_trained_in_the_tasks_own_way_are_shared_with_build_suspects(owner, task, tmp_path, trainings):
    given = options(cache=tmp_path)
    common = {"architectures": given["architectures"], "cache": tmp_path, "families": SMALL.families}
    plain = build_suspects(owner, task, positives=2, negatives=6, **common)
    mine = build_test_suspects(owner, task, **given)
    shared_families = {*SMALL.families, HOMOLOGOUS}
    expected = {entry.run: bits(entry.model) for entry in plain if entry.family in shared_families}
    assert len(expected) == 3
    assert len(trainings) == 13 - 3
    shared = {entry.run: bits(entry.model) for entry in mine if entry.run in expected}
    assert len(shared) == 3
    assert all(expected[run] == found for run, found in shared.items())


def test_generators_get_suspects_with_another_latent_space():
    task, owner = task_of("generation"), owner_of("generation")
    scale = SuspectCounts(
        rounds=2,
        families=("weight_prune",),
        attacks=("permute_latent", "rotate_latent"),
        stacks=0,
        homologous=1,
        other_architecture=0,
        other_data=0,
        attacked=0,
    )
    # A generator whose first layer sees no plain latent comes back behind its map.
    for model in (owner, nn.Sequential(nn.Hardtanh(-9.0, 9.0), owner)):
        found = build_test_suspects(model, task, scale=scale, architectures=[])
        moved = [entry for entry in found if entry.family in ("permute_latent", "rotate_latent")]
        assert len(moved) == 4
        latents = task.natural_queries(20, seed=3)
        assert all(not torch.allclose(predict(entry.model, latents), predict(model, latents)) for entry in moved)
        assert all(entry.metric == pytest.approx(task.metric(entry.model), rel=1e-4) for entry in moved)


def test_a_fingerprint_is_evaluated_on_them(owner, task):
    fp = make_fingerprint()
    from small_fingerprints import small_owner, small_task

    scale = SuspectCounts(
        rounds=1,
        families=("weight_prune", "finetune_last"),
        attacks=("permute_neurons", "unlearn_fingerprint"),
        stacks=0,
        homologous=3,
        other_architecture=0,
        other_data=0,
        attacked=2,
    )
    queries = torch.from_numpy(np.array(fp.queries))
    found = build_test_suspects(small_owner(), small_task(), scale=scale, queries=queries)
    result = metav.evaluate(fp, found.shipped + found.apart)
    assert (result.tpr.total + result.inconclusive, result.tnr.total) == (4, 5)
    assert {entry.reason for entry in result.results} <= {None, "recipe_not_told"}
    by_family = {entry.family: entry.score for entry in result.results}
    owner_score = metav.verify(fp, small_owner()).score
    assert by_family["permute_neurons"] == pytest.approx(owner_score, abs=1e-4)


def test_only_the_wanted_families_are_trained_and_as_in_the_whole_set(owner, task, trainings):
    wanted = ("unlearn_fingerprint", "attacked_independent")
    part = build_test_suspects(owner, task, families=wanted, **options())
    assert {entry.family for entry in part} == set(wanted)
    assert {run.split("/")[1] for run in trainings} == set(wanted)
    whole = {entry.run: entry for entry in build_test_suspects(owner, task, **options())}
    assert all(bits(entry.model) == bits(whole[entry.run].model) for entry in part)
    with pytest.raises(InputError, match=r"families must name some of weight_prune, .*, got magic"):
        build_test_suspects(owner, task, families=("magic",), **options())


def test_wrong_arguments_are_refused(owner, task):
    with pytest.raises(InputError, match="scale must be one of smoke, small, paper"):
        build_test_suspects(owner, task, scale="huge")
    with pytest.raises(InputError, match="queries must have shape"):
        build_test_suspects(owner, task, scale=SMALL, queries=torch.zeros(3, 64))
    with pytest.raises(InputError, match="allowed_loss"):
        build_test_suspects(owner, task, allowed_loss=-0.1)
    with pytest.raises(ModelError, match=r"owner must be a torch\.nn\.Module"):
        build_test_suspects("owner", task)
