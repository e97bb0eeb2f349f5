"""The joint optimisation: it improves the queries, keeps them valid, and picks what holds the classes apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_fingerprints import small_owner, small_task, small_zoo

from metav.errors import ZooError
from metav.optimization.informative_queries import Candidates, informativeness
from metav.optimization.optimization import optimize
from metav.optimization.options import OptimizationOptions
from metav.statistics.roc_aruc import roc_auc
from metav.zoo.zoo import Zoo

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


def test_with_few_surrogates_they_start_as_informative_ones():
    found = fit(radius=1e-6, steps=2)
    natural = small_task().natural_queries(9, seed=0)
    models = [entry for entry in small_zoo().models if entry.share in ("optimize", "select") and entry.fraction == 1.0]

    def quality(queries):
        return informativeness(Candidates.asked(small_owner(), models, queries), small_task().view).mean()

    assert quality(torch.from_numpy(found.queries[: found.adaptive])) > 2 * quality(natural)


@pytest.mark.usefixtures("as_of_many_surrogates")
def test_queries_whose_answers_are_no_classes_start_as_natural_ones():
    assert margins(fit(view="identity", adaptive=1.0, radius=1e-4, steps=2).queries).mean() > 0.02


def margins(queries):
    """Difference of the owner's two largest probabilities, per query."""
    with torch.no_grad():
        highest = small_owner()(torch.from_numpy(queries)).softmax(dim=1).topk(2).values
    return (highest[:, 0] - highest[:, 1]).numpy()


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


@pytest.mark.parametrize(("view", "paired"), [("identity", True), ("logprob", False)])
def test_an_mlp_reads_the_distance_from_the_owner_unless_it_reads_log_probabilities(view, paired):
    found = fit(verifier="mlp", view=view)
    for member in found.meta_verifier.members:
        assert (member.reference is not None) == paired
        assert member.verifier.outputs == found.outputs * (2 if paired else 1)


def test_a_zoo_without_a_share_is_refused():
    zoo = small_zoo()
    part = Zoo(models=zoo.share("optimize"), owner_digest=zoo.owner_digest, task_digest=zoo.task_digest, seed=zoo.seed)
    with pytest.raises(ZooError, match=r"'select' share has 0 positives and 0 negatives.*build a larger zoo"):
        optimize(small_owner(), small_task(), part, options=OptimizationOptions(**SMALL), progress=False)
