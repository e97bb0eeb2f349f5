"""The joint optimisation: it improves the queries, keeps them valid, and picks what holds the classes apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_fingerprints import small_owner, small_task, small_zoo
from torch import nn

from metav import _core
from metav.errors import InputError, ZooError
from metav.models.ensembles import Ensemble, run_model
from metav.optimization.boundary_queries import boundary_queries
from metav.optimization.candidates import Candidate, select_members
from metav.optimization.cross_fitting import calibration_parts, refit
from metav.optimization.optimization import optimize
from metav.optimization.options import OptimizationOptions
from metav.optimization.query_pool import choose_queries
from metav.optimization.settings import resolve_settings
from metav.optimization.shares import Shares
from metav.statistics.roc_aruc import roc_auc
from metav.verifiers.meta_verifier import Member, MetaVerifier
from metav.verifiers.views import paired_features
from metav.zoo.zoo import Zoo, ZooModel

SMALL = {"queries": 12, "pool": 1, "steps": 12, "evaluate_every": 4, "refit_steps": 60, "sampled": 4}


def fit(**options):
    options = OptimizationOptions(**(SMALL | options))
    return optimize(small_owner(), small_task(), small_zoo(), options=options, progress=False)


@pytest.fixture
def as_of_many_surrogates(monkeypatch):
    """The small zoo counts as large: there is a pool, and queries start on the boundary."""
    monkeypatch.setattr("metav.optimization.settings.POOL_SURROGATES", 12)
    monkeypatch.setattr("metav.optimization.settings.BOUNDARY_SURROGATES", 12)


def test_queries_stay_within_bounds_radius_and_levels():
    task = small_task()
    found = fit(adaptive=1.0, radius=0.1, levels=16)
    natural = task.natural_queries(1, seed=0)
    assert found.queries.shape == (12, *natural.shape[1:])
    assert (found.queries >= task.lower.numpy()).all()
    assert (found.queries <= task.upper.numpy()).all()
    spread = (task.upper - task.lower).numpy()
    steps = (found.queries - task.lower.numpy()) / np.where(spread > 0, spread / 15, 1)
    assert np.abs(steps - np.rint(steps)).max() < 1e-3


def test_the_natural_part_is_natural_and_the_adaptive_part_has_moved():
    task = small_task()
    found = fit(adaptive=0.5)
    examples = task.examples.numpy().reshape(len(task.examples), -1)
    is_example = [(examples == query.ravel()).all(axis=1).any() for query in found.queries]
    assert found.adaptive == 6
    assert all(is_example[6:])
    assert not any(is_example[:6])


def test_without_adaptive_queries_nothing_is_optimised():
    found = fit(adaptive=0.0)
    assert (found.adaptive, found.steps, found.held_out_aruc) == (0, 0, ())
    assert {candidate.member.name.split(":")[1] for candidate in found.candidates} == {"natural"}


@pytest.mark.usefixtures("as_of_many_surrogates")
def test_few_queries_are_the_best_of_a_pool_and_optimised_once_more():
    found = fit(queries=3, pool=12, adaptive=1.0)
    whole = fit(queries=12, adaptive=1.0)
    assert (found.queries.shape[0], found.adaptive) == (3, 3)
    steps = [step for step, _ in found.held_out_aruc]
    assert steps[: len(whole.held_out_aruc)] == [step for step, _ in whole.held_out_aruc]
    assert steps == sorted(set(steps))
    assert found.steps == steps[-1] > whole.steps
    assert {candidate.member.name.split(":")[1] for candidate in found.candidates} == {"adaptive"}


@pytest.mark.usefixtures("as_of_many_surrogates")
@pytest.mark.parametrize("adaptive", [None, 0.4])
def test_of_few_queries_those_stay_natural_that_tell_more_or_that_were_asked_for(adaptive):
    task = small_task()
    found = fit(queries=5, pool=12, adaptive=adaptive)
    examples = task.examples.numpy().reshape(len(task.examples), -1)
    is_example = [(examples == query.ravel()).all(axis=1).any() for query in found.queries]
    optimised = found.adaptive if adaptive is None else 2
    assert (found.adaptive, is_example) == (optimised, [False] * optimised + [True] * (5 - optimised))


@pytest.mark.usefixtures("as_of_many_surrogates")
def test_a_pool_keeps_to_the_radius_and_to_the_examples_there_are():
    small = small_task().subset(range(14))
    options = OptimizationOptions(**SMALL | {"pool": 999, "adaptive": 1.0, "radius": 0.1, "view": "identity"})
    found = optimize(small_owner(), small, small_zoo(), options=options, progress=False)
    examples = small.examples.numpy().reshape(1, 14, -1)
    distances = np.abs(found.queries.reshape(12, 1, -1) - examples).max(axis=2).min(axis=1)
    spread = float((small.upper - small.lower).max())
    assert found.adaptive == 12
    assert 0 < distances.max() <= 0.1 * spread + 1e-6


def test_a_small_zoo_has_no_pool():
    found, plain = fit(queries=3, pool=12), fit(queries=3)
    assert found.adaptive == plain.adaptive == 2
    np.testing.assert_array_equal(found.queries, plain.queries)


class Halves(nn.Module):
    """Two classes that meet where the first number of an input is 0.3."""

    def forward(self, inputs):
        first = inputs.flatten(1)[:, 0] - 0.3
        return torch.stack([-first, first], dim=1)


def test_boundary_queries_lie_where_the_owners_label_changes_between_two_natural_inputs():
    task = small_task()
    examples = np.random.default_rng(0).random((60, *task.input_shape), dtype=np.float32)
    task = task.with_data(torch.from_numpy(examples), task.targets[:60])
    found = boundary_queries(Halves(), task, 20, seed=0)
    assert found.shape == (20, *task.input_shape)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.flatten(1)[:, 0], 0.3, atol=2**-12)
    first, second = examples.reshape(60, 1, -1), examples.reshape(1, 60, -1)
    for query in found.flatten(1).numpy():
        # on a line between two examples the way there and the way on add up to the whole way
        detour = np.linalg.norm(query - first, axis=2) + np.linalg.norm(query - second, axis=2)
        whole = np.linalg.norm(first - second, axis=2)
        assert (detour - whole + (whole == 0)).min() < 1e-4


def test_boundary_queries_follow_from_the_seed():
    found = [boundary_queries(small_owner(), small_task(), 8, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_an_owner_of_one_label_has_no_boundary():
    task = small_task()
    ones = task.with_data(torch.ones_like(task.examples), task.targets)
    assert boundary_queries(Halves(), ones, 8, seed=0).shape == (0, *task.input_shape)


def test_where_labels_are_read_all_queries_start_on_the_owners_boundary():
    found = fit(view="label", radius=1e-4)
    assert found.adaptive == len(found.queries) == 12
    between = margins(found.queries)
    natural = margins(small_task().natural_queries(12, seed=0).numpy())
    assert between.max() < 0.02 < natural.mean()


@pytest.mark.usefixtures("as_of_many_surrogates")
@pytest.mark.parametrize("view", [None, "round(2)", "topk(3)"])
def test_with_many_surrogates_queries_for_scores_start_on_the_owners_boundary(view):
    found = fit(view=view, queries=40, radius=1e-4, steps=2)
    assert found.adaptive == 30
    between = margins(found.queries)
    assert between[:30].max() < 0.02 < between[30:].mean()


def test_with_few_surrogates_they_start_as_natural_ones():
    assert margins(fit(adaptive=1.0, radius=1e-4).queries).mean() > 0.02


@pytest.mark.usefixtures("as_of_many_surrogates")
def test_queries_whose_answers_are_no_classes_start_as_natural_ones():
    assert margins(fit(view="identity", adaptive=1.0, radius=1e-4, steps=2).queries).mean() > 0.02


def margins(queries):
    """Difference of the owner's two largest probabilities, per query."""
    with torch.no_grad():
        highest = small_owner()(torch.from_numpy(queries)).softmax(dim=1).topk(2).values
    return (highest[:, 0] - highest[:, 1]).numpy()


def untrained_zoo(surrogates):
    """A zoo of so many models of each class that are nothing: settings follow from their number alone."""
    models = tuple(
        ZooModel(
            model=nn.Identity(),
            is_positive=is_positive,
            family="finetune_all" if is_positive else "independent_same_data",
            strength=None,
            seed=number,
            run=f"{is_positive}/{number}",
            fraction=1.0,
            share="optimize",
            architecture=0,
            metric=0.9,
        )
        for is_positive in (True, False)
        for number in range(surrogates)
    )
    return Zoo(models=models, owner_digest="", task_digest="", seed=0)


@pytest.mark.parametrize(
    ("given", "view", "surrogates", "expected"),
    [
        ({}, "label", 3, (20, 20, 0, True, 0.5)),
        ({"adaptive": 0.5, "radius": 1.0}, "label", 3, (10, 10, 10, True, 1.0)),
        ({}, "logprob", 127, (15, 15, 5, False, None)),
        ({}, "logprob", 128, (15, 15, 5, True, 0.5)),
        ({"radius": 1.0}, "round(2)", 128, (15, 15, 5, True, 1.0)),
        ({}, "identity", 128, (15, 15, 5, False, None)),
        ({}, "logprob", 191, (15, 15, 5, True, 0.5)),
        ({}, "logprob", 192, (40, 20, 40, True, 0.5)),
        ({"pool": 7}, "logprob", 192, (15, 15, 5, True, 0.5)),
        ({}, "label", 191, (20, 20, 0, True, 0.5)),
        ({}, "label", 192, (100, 20, 0, True, 0.5)),
        ({"pool": 1}, "label", 192, (20, 20, 0, True, 0.5)),
    ],
)
def test_what_none_stands_for_depends_on_view_and_zoo(given, view, surrogates, expected):
    options = OptimizationOptions(queries=20, view=view, **given)
    found = resolve_settings(options, small_task(), untrained_zoo(surrogates))
    assert (found.optimized, found.adaptive, found.natural, found.starts_on_boundary, found.radius) == expected
    assert (found.view, found.keeps_natural) == (view, "adaptive" in given or view == "label")


def test_what_the_task_says_stands_where_no_option_does():
    task = small_task()
    found = resolve_settings(OptimizationOptions(), task, small_zoo())
    assert (found.view, found.levels) == (task.view, task.levels)
    found = resolve_settings(OptimizationOptions(view="label", levels=16), task, small_zoo())
    assert (found.view, found.levels) == ("label", 16)


def shares_of(signal, roles=(2, 1, 1, 1, 0, 0, 0, 0), repeats=8):
    """Answers (models, queries, 1): of every query a multiple of the class plus noise; the others are noise alone."""
    random = np.random.default_rng(0)
    roles = np.tile(np.array(roles, dtype=np.uint8), repeats)
    sign = np.where(roles > 0, 1.0, -1.0)[:, None, None]
    answers = random.normal(size=(2, len(roles), len(signal), 1)) + sign * np.array(signal)[:, None]
    optimize, select = np.ascontiguousarray(answers, dtype=np.float32)
    derived = roles > 0
    return Shares(
        owner=optimize[:1],
        optimize=optimize,
        optimize_roles=roles.tobytes(),
        select=select,
        select_derived=derived,
        calibrate=select[:0],
        calibrate_derived=derived[:0],
        calibrate_families=(),
    )


def test_the_queries_that_tell_most_are_chosen_first():
    assert choose_queries(shares_of([0.0, 1.0, 0.0, 3.0, 0.2, 2.0]), "identity", 3) == [3, 5, 1]
    assert sorted(choose_queries(shares_of([0.0, 1.0, 0.5]), "identity", 9)) == [0, 1, 2]


def test_a_query_that_repeats_another_is_chosen_last():
    shares = shares_of([2.0, 0.0, 1.0])
    for answers in (shares.optimize, shares.select):
        answers[:, 1] = answers[:, 0]
    assert choose_queries(shares, "identity", 3) == [0, 2, 1]


def test_the_verifier_tells_the_calibration_models_apart():
    found = fit(queries=30, steps=40)
    assert roc_auc(found.calibration.positives, found.calibration.negatives) > 0.8


@pytest.mark.parametrize("kind", ["mlp", "local", "matched"])
def test_one_kind_can_be_asked_for(kind):
    found = fit(verifier=kind)
    assert {member.verifier.kind for member in found.meta_verifier.members} == {kind}
    assert sum(member.weight for member in found.meta_verifier.members) == pytest.approx(1.0)


def test_a_repeated_run_gives_the_same_bits():
    one, two = fit(), fit()
    assert one.queries.tobytes() == two.queries.tobytes()
    for name, tensor in one.meta_verifier.tensors().items():
        assert tensor.tobytes() == two.meta_verifier.tensors()[name].tobytes()


def candidate(auc, separation, kind="mlp"):
    member = Member(
        name=f"{kind}:all",
        verifier=_core.Verifier(kind, 2, 2),
        start=0,
        stop=2,
        weight=1.0,
        center=0.0,
        spread=1.0,
    )
    return Candidate(member=member, auc=auc, separation=separation)


def test_a_candidate_that_separates_worse_has_no_say():
    chosen = select_members([candidate(1.0, 4.0), candidate(1.0, 1.0, "local"), candidate(0.9, 4.0, "matched")])
    assert [(member.verifier.kind, member.weight) for member in chosen.members] == [("mlp", 1.0)]


def test_equal_candidates_share_the_weight():
    chosen = select_members([candidate(1.0, 9.0), candidate(1.0, 12.0)])
    assert [member.weight for member in chosen.members] == [0.5, 0.5]


def test_other_kinds_count_only_where_no_mlp_comes_close():
    others = [candidate(1.0, 9.0, "local"), candidate(1.0, 9.0, "matched")]
    assert [member.verifier.kind for member in select_members([candidate(0.99, 3.0), *others]).members] == ["mlp"]
    chosen = select_members([candidate(0.9, 9.0), *others])
    assert [member.verifier.kind for member in chosen.members] == ["local", "matched"]


def test_every_family_is_spread_over_the_calibration_parts():
    families = ["distill", "quantize"] * 4 + ["distill"]
    parts = calibration_parts(families, 3)
    assert np.bincount(parts).tolist() == [3, 3, 3]
    for family in set(families):
        sizes = np.bincount(parts[[name == family for name in families]], minlength=3)
        assert max(sizes) - min(sizes) <= 1


def test_calibration_models_are_judged_by_members_that_they_did_not_train():
    random = np.random.default_rng(0)
    families = ("distill",) * 6 + ("independent_same_data",) * 6
    derived = np.array([True] * 6 + [False] * 6)

    def answers(count):
        return random.standard_normal((count, 4, 2)).astype(np.float32)

    shares = Shares(
        owner=answers(1),
        optimize=answers(7),
        optimize_roles=bytes([_core.ROLE_OWNER, *[_core.ROLE_POSITIVE] * 3, *[_core.ROLE_NEGATIVE] * 3]),
        select=answers(2),
        select_derived=np.array([True, False]),
        calibrate=answers(12),
        calibrate_derived=derived,
        calibrate_families=families,
    )
    # noise for answers: a member knows the models that it learned by heart, and no others
    options = OptimizationOptions(
        queries=4, view="identity", repeats=2, refit_steps=300, mix=0.0, noise=0.0, dropout=0.0
    )
    resolved = resolve_settings(options, small_task(), untrained_zoo(6))
    found = refit(MetaVerifier((candidate(1.0, 1.0).member,)), shares, resolved, seed=0)
    assert [member.weight for member in found.meta_verifier.members] == [0.5, 0.5]
    for part, member in zip((0, 1), found.meta_verifier.members, strict=True):
        out = calibration_parts(families, 2) == part
        logits = MetaVerifier((replace(member, weight=1.0),)).logits(shares.calibrate)
        assert roc_auc(logits[derived & ~out], logits[~derived & ~out]) == 1.0
        assert set(logits[derived & out]) <= set(found.positives)
        assert set(logits[~derived & out]) <= set(found.negatives)


@pytest.mark.parametrize(("view", "paired"), [("identity", True), ("logprob", False)])
def test_an_mlp_reads_the_distance_from_the_owner_unless_it_reads_log_probabilities(view, paired):
    found = fit(verifier="mlp", view=view)
    for member in found.meta_verifier.members:
        assert (member.reference is not None) == paired
        assert member.verifier.outputs == found.outputs * (2 if paired else 1)


def test_paired_features_hold_the_answer_and_its_distance_from_the_owners():
    owner, given = np.array([[1.0, -2.0]], np.float32), np.array([[[0.5, 1.0]], [[3.0, -2.0]]], np.float32)
    assert paired_features(given, owner, "identity").tolist() == [[[0.5, 1.0, 0.5, 3.0]], [[3.0, -2.0, 2.0, 0.0]]]


def test_candidates_that_separate_nothing_are_refused():
    with pytest.raises(ZooError, match="no verifier tells derived from independent models"):
        select_members([candidate(0.4, -1.0)])


def test_a_zoo_without_a_share_is_refused():
    zoo = small_zoo()
    part = Zoo(models=zoo.share("optimize"), owner_digest=zoo.owner_digest, task_digest=zoo.task_digest, seed=zoo.seed)
    with pytest.raises(ZooError, match=r"'select' share has 0 positives and 0 negatives.*build a larger zoo"):
        optimize(small_owner(), small_task(), part, options=OptimizationOptions(**SMALL), progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 0}, "queries must be a whole number from 1, got 0"),
        ({"queries": 1.5}, "queries must be a whole number from 1, got 1.5"),
        ({"pool": 0}, "pool must be a whole number from 1, got 0"),
        ({"pool": "many"}, "pool must be a whole number from 1, got 'many'"),
        ({"adaptive": "all"}, "adaptive must lie in .0, 1., got 'all'"),
        ({"mix": None}, "mix must lie in .0, 1., got None"),
        ({"adaptive": 1.5}, r"adaptive must lie in \[0, 1\]"),
        ({"verifier": "svm"}, 'verifier must be "auto" or one of mlp, local, matched'),
        ({"repeats": 0}, "repeats must be a whole number from 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        OptimizationOptions(**options)


def test_grouped_and_single_models_answer_alike_and_pass_gradients(tmp_path, monkeypatch):
    monkeypatch.setenv("METAV_CACHE_DIR", str(tmp_path))
    models = [entry.model for entry in small_zoo().models[:6]]
    queries = small_task().natural_queries(5, seed=1).requires_grad_(True)
    ensemble = Ensemble(models, queries.detach())
    answers = ensemble.responses(queries, [4, 0, 2])
    expected = torch.stack([run_model(models[index], queries) for index in (4, 0, 2)])
    assert torch.allclose(answers, expected, atol=1e-4)
    (gradient,) = torch.autograd.grad(answers.square().sum(), queries)
    (wanted,) = torch.autograd.grad(expected.square().sum(), queries)
    assert torch.allclose(gradient, wanted, rtol=1e-3, atol=1e-3)


def test_the_choice_between_vmap_and_loop_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("METAV_CACHE_DIR", str(tmp_path))
    models = [entry.model for entry in small_zoo().models if entry.architecture == 0][:4]
    queries = small_task().natural_queries(5, seed=1)
    Ensemble(models, queries)
    (plan,) = (tmp_path / "execution_plans").iterdir()
    for choice, grouped in (("vmap", 4), ("loop", 0)):
        plan.write_text(choice)
        assert Ensemble(models, queries).grouped == grouped
