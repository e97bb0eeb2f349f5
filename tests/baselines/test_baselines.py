"""What every scheme that metav is compared with promises, and what it refuses."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_baselines import (
    BY_LABEL,
    CLOSED,
    FOR_ALL_TASKS,
    SCHEMES,
    N,
    Renamed,
    answers,
    fit,
    fitted,
    fresh,
    scores_of,
    zoo_of,
)
from small_fingerprints import small_owner, small_suspects, small_task, small_zoo, state_of
from small_models import HeadFirst, task_of

from metav.baselines import (
    BASELINES,
    SAC,
    Baseline,
    ConferAE,
    DeepJudge,
    FixedQueryVerifier,
    IPGuard,
    LiteGuard,
    MatchedFilter,
    ModelDiff,
    OutputDistance,
    PublishedMetaV,
)
from metav.errors import InputError, ModelError, SuspectError, ZooError
from metav.statistics.roc_aruc import roc_auc
from metav.suspects import CallableSuspect, RecordedSuspect
from metav.zoo.zoo import Zoo

every_scheme = pytest.mark.parametrize("name", SCHEMES)


# What every scheme promises -------------------------------------------------------------------------------------------


def test_the_table_holds_every_scheme_by_its_name() -> None:
    assert len(BASELINES) == 11
    for name, scheme in BASELINES.items():
        assert scheme.name == name
        assert scheme.supports(task_of("classification"))


@every_scheme
def test_a_copy_of_the_owner_scores_above_every_independent_model(name: str) -> None:
    scheme = fitted(name)
    assert scheme.score(copy.deepcopy(small_owner())) > max(scores_of(scheme, small_suspects(), False))


@pytest.mark.parametrize("name", CLOSED)
def test_a_copy_of_the_owner_has_the_highest_score_that_there_is(name: str) -> None:
    # the core's gain 10 and bias -3 at a cosine of 1
    highest = 1 / (1 + np.exp(-7.0)) if name == "matched filter" else 1.0
    assert fitted(name).score(copy.deepcopy(small_owner())) == pytest.approx(highest, abs=1e-6)


@every_scheme
def test_suspects_that_no_fit_has_seen_are_told_apart(name: str) -> None:
    scheme = fitted(name)
    derived, independent = (scores_of(scheme, small_suspects(), kind) for kind in (True, False))
    assert all(0 <= score <= 1 for score in derived + independent)
    assert roc_auc(derived, independent) > 0.75


@every_scheme
def test_the_seed_decides_everything(name: str) -> None:
    one, two, other = fitted(name), fit(name), fit(name, seed=1)
    assert one.queries.tobytes() == two.queries.tobytes()
    model = small_suspects().models[0].model
    assert one.score(model) == two.score(model)
    assert one.queries.tobytes() != other.queries.tobytes() or name == "AKH"


@every_scheme
def test_owner_surrogates_and_global_generators_stay_as_they_were(name: str) -> None:
    def all_states() -> tuple[object, ...]:
        models = [state_of(small_owner()), *(state_of(entry.model) for entry in small_zoo())]
        legacy = str(np.random.get_state())  # noqa: NPY002 (the user's global state)
        return (*models, torch.get_rng_state().tolist(), legacy, random.getstate())

    owner = small_owner()
    try:
        owner.train()
        before = all_states()
        fit(name).score(owner)
        assert all_states() == before
    finally:
        owner.eval()


@every_scheme
def test_queries_are_valid_inputs_and_no_more_than_wanted(name: str) -> None:
    queries, task = fitted(name).queries, small_task()
    assert queries.dtype == np.float32
    assert queries.shape == (N, *task.input_shape)
    assert (queries >= task.lower.numpy()).all()
    assert (queries <= task.upper.numpy()).all()


@every_scheme
def test_the_form_of_the_answers_does_not_matter(name: str) -> None:
    scheme, model = fitted(name), small_suspects().models[1].model
    logits = answers(model, scheme.queries)
    wanted = scheme.score(model)
    recorded = RecordedSuspect(logits)
    called = CallableSuspect(lambda images: torch.softmax(model(images), dim=1), accepts="torch")
    assert scheme.score(recorded) == pytest.approx(wanted, abs=1e-6)
    assert scheme.score(called) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("name", BY_LABEL)
def test_labels_are_enough_for_a_matching_rate(name: str) -> None:
    scheme, model = fitted(name), small_suspects().models[1].model
    labels = answers(model, scheme.queries).argmax(1)
    assert scheme.score(RecordedSuspect(labels)) == scheme.score(model)
    owner = answers(small_owner(), scheme.queries).argmax(1)
    assert scheme.score(model) == pytest.approx(float((labels == owner).double().mean()))


@pytest.mark.parametrize("name", BY_LABEL)
def test_a_matching_rate_is_zero_where_every_class_has_another_name(name: str) -> None:
    assert fitted(name).score(Renamed()) == 0.0


@pytest.mark.parametrize("name", ["SAC", "ModelDiff"])
def test_similarities_between_inputs_survive_other_names_of_the_classes(name: str) -> None:
    assert fitted(name).score(Renamed()) == pytest.approx(1.0, abs=1e-6)


@every_scheme
def test_a_suspect_of_another_task_is_refused(name: str) -> None:
    with pytest.raises(SuspectError, match="expected 10"):
        fitted(name).score(HeadFirst(64, 3))


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["regression", "generation"])
@pytest.mark.parametrize("name", [name for name in SCHEMES if name not in FOR_ALL_TASKS])
def test_a_task_that_makes_no_sense_is_refused(name: str, task: str) -> None:
    with pytest.raises(InputError, match=rf"{name} is defined for classification, not for {task}"):
        SCHEMES[name]().fit(fresh(task, 0), task_of(task), zoo_of(task), queries=4, seed=0)


@pytest.mark.parametrize("name", [name for name in SCHEMES if BASELINES[name].least_negatives])
def test_too_few_surrogates_are_refused(name: str) -> None:
    zoo = small_zoo()
    few = {
        "no independent one": zoo.positives,
        "only suspects": tuple(replace(entry, share="test") for entry in zoo),
    }
    for models in few.values():
        part = Zoo(models=models, owner_digest=zoo.owner_digest, task_digest=zoo.task_digest, seed=0)
        with pytest.raises(ZooError, match=r"needs at least \d derived and \d independent.*build a larger one"):
            SCHEMES[name]().fit(small_owner(), small_task(), part, queries=N, seed=0)


@pytest.mark.parametrize("queries", [0, True, 2.5])
def test_a_number_of_queries_that_is_none_is_refused(queries: object) -> None:
    with pytest.raises(InputError, match="queries of output distance must be a whole number from 1"):
        OutputDistanceOfOne().fit(small_owner(), small_task(), small_zoo(), queries=queries, seed=0)


class OutputDistanceOfOne(OutputDistance):
    least_queries = 1


@every_scheme
def test_a_score_before_the_fit_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="call fit"):
        SCHEMES[name]().score(small_owner())


def test_a_scheme_without_surrogates_needs_no_zoo_and_others_say_so() -> None:
    SAC().fit(small_owner(), small_task(), None, queries=4, seed=0)
    with pytest.raises(ZooError, match="pass a zoo"):
        LiteGuard().fit(small_owner(), small_task(), None, queries=4, seed=0)


def test_a_fit_that_fails_leaves_no_earlier_one_behind() -> None:
    scheme = fit("AKH")
    unlabelled = copy.copy(small_task())
    unlabelled.targets = None
    with pytest.raises(InputError, match="labelled"):
        scheme.fit(small_owner(), unlabelled, None, queries=4, seed=0)
    with pytest.raises(InputError, match="call fit"):
        scheme.score(small_owner())


def test_an_owner_that_is_no_module_is_refused() -> None:
    with pytest.raises(ModelError, match="pass the trained model"):
        SAC().fit("owner.pt", small_task(), small_zoo(), queries=4, seed=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: IPGuard(margin=0.0),
        lambda: ConferAE(dropout=1.0),
        lambda: ModelDiff(epsilons=(0.2, 0.1)),
        lambda: DeepJudge(candidates=0),
        lambda: LiteGuard(steps=0),
        lambda: FixedQueryVerifier(steps=0),
        lambda: MatchedFilter(shrinkage=0.0),
        lambda: PublishedMetaV(evaluate_every=0),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], Baseline]) -> None:
    with pytest.raises(InputError):
        make()


# Regression and generation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["regression", "generation"])
@pytest.mark.parametrize("name", FOR_ALL_TASKS)
def test_schemes_for_all_tasks_tell_disturbed_copies_from_other_models(name: str, task: str) -> None:
    scheme = SCHEMES[name]().fit(fresh(task, 0), task_of(task), zoo_of(task), queries=12, seed=0)
    derived, independent = (scores_of(scheme, zoo_of(task, 200), kind) for kind in (True, False))
    assert roc_auc(derived, independent) == 1.0
    assert scheme.score(fresh(task, 0)) > max(independent)
