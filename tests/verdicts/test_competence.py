"""Competence: models of the task have it, whatever their family; things that only answer have none."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from answer_forms import gaussian, one_hot, real_answers, softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.datasets import load_diabetes, load_digits, make_friedman2
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import cohen_kappa_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from metav.errors import InputError
from metav.verdicts.competence import judge_competence, measure_competence, rank_correlations, required_skill

NATURAL = 50


@cache
def digits():
    """(answers by name, truth, untrained answers) to 50 natural queries, other rows than those that train."""
    data = load_digits()
    order = np.random.default_rng(31).permutation(len(data.target))
    inputs, labels = data.data[order] / 16, data.target[order]
    makers = {
        **{f"logistic {c}": LogisticRegression(C=c, max_iter=500) for c in (0.1, 1.0, 10.0)},
        **{f"neighbours {k}": KNeighborsClassifier(k) for k in (1, 3, 5, 9)},
        "svc": SVC(decision_function_shape="ovr"),
        "bayes": GaussianNB(),
        "tree": DecisionTreeClassifier(random_state=0),
        "small tree": DecisionTreeClassifier(max_depth=5, random_state=0),
    }
    answers = {}
    for name, model in makers.items():
        model.fit(inputs[200:900], labels[200:900])
        scores = model.decision_function if name == "svc" else model.predict_proba
        answers[name] = np.asarray(scores(inputs[:NATURAL]), dtype=np.float64)
    untrained = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        hidden = np.maximum(inputs[:NATURAL] @ random.standard_normal((64, 48)) / 8, 0)
        untrained.append(hidden @ random.standard_normal((48, 10)) / 7)
    return answers, labels[:NATURAL], untrained


STRONG = ("logistic 0.1", "logistic 1.0", "logistic 10.0", "neighbours 1", "neighbours 3", "neighbours 5", "svc")


def judged(answers, calibration=STRONG):
    known, truth, _ = digits()
    models = np.stack([known[name] for name in calibration])
    return judge_competence(answers, truth, "classification", calibration=models)


# Classifiers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["neighbours 9", "bayes", "tree", "small tree"])
@pytest.mark.parametrize("calibration", [STRONG, (*STRONG, "bayes"), (*STRONG, "small tree", "bayes")])
def test_honest_weak_models_are_competent(name, calibration):
    found = judged(digits()[0][name], calibration)
    assert found.is_competent
    assert found.lowest <= found.highest
    assert found.models == len(calibration)


@pytest.mark.parametrize("seed", range(10))
def test_noise_is_not_competent(seed):
    random = np.random.default_rng(seed)
    for answers in (gaussian(NATURAL, 10, 1.0, seed), random.dirichlet(np.ones(10), NATURAL)):
        for calibration in (STRONG, (*STRONG, "small tree", "bayes")):
            assert not judged(answers, calibration).is_competent


def test_untrained_networks_constants_and_other_orders_are_not_competent():
    known, _, untrained = digits()
    for answers in untrained:
        assert not judged(answers).is_competent
    for k in range(10):
        assert not judged(one_hot(np.eye(10)[np.full(NATURAL, k)])).is_competent
    assert not judged(np.zeros((NATURAL, 10))).is_competent
    for shift in range(1, 10):
        assert not judged(np.roll(known["svc"], shift, axis=1)).is_competent
        assert not judged(np.roll(known["svc"], 5 * shift, axis=0)).is_competent


@pytest.mark.parametrize("damage", [0.05, 0.1, 0.2, 0.3])
def test_moderately_damaged_copies_are_competent(damage):
    random = np.random.default_rng(4)
    answers = digits()[0]["svc"].copy()
    spoilt = random.random(NATURAL) < damage
    answers[spoilt] = gaussian(int(spoilt.sum()), 10, 1.0)
    assert judged(answers).is_competent


@pytest.mark.parametrize("name", ["wine", "cancer", "iris"])
def test_families_of_scikit_learn_pass_on_small_tables_and_noise_does_not(name):
    models = {model: real_answers(name, model)[0] for model in ("logistic", "bayes", "tree", "forest")}
    truth = real_answers(name, "tree")[1]
    for left_out in models:
        calibration = np.stack([answers for model, answers in models.items() if model != left_out])
        assert judge_competence(models[left_out], truth, "classification", calibration=calibration).is_competent
    calibration = np.stack(list(models.values()))
    outputs = calibration.shape[2]
    judgements = [
        judge_competence(
            gaussian(60, outputs, 1.0, seed), truth, "classification", calibration=calibration
        ).is_competent
        for seed in range(20)
    ]
    assert not any(judgements)


@given(queries=st.integers(2, 60), outputs=st.integers(2, 10), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_skill_of_a_classifier_is_cohens_kappa(queries, outputs, seed):
    random = np.random.default_rng(seed)
    answers, truth = random.standard_normal((queries, outputs)), random.integers(outputs, size=queries)
    value, skill = measure_competence(answers, truth, "classification")
    predicted = answers.argmax(axis=1)
    assert value == pytest.approx((predicted == truth).mean())
    if len(np.unique(np.concatenate([predicted, truth]))) > 1:
        assert skill == pytest.approx(cohen_kappa_score(truth, predicted))


@given(outputs=st.integers(2, 8), seed=st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_ties_and_constants_have_no_skill(outputs, seed):
    truth = np.random.default_rng(seed).integers(outputs, size=40)
    value, skill = measure_competence(np.full((40, outputs), 1 / outputs), truth, "classification")
    assert value == pytest.approx(1 / outputs)
    assert skill == pytest.approx(0, abs=1e-12)
    constant = np.eye(outputs)[np.full(40, truth[0])]
    assert measure_competence(constant, truth, "classification")[1] == pytest.approx(0, abs=1e-12)


def test_on_very_unequal_classes_the_majority_class_is_no_skill():
    random = np.random.default_rng(2)
    truth = (random.random(100) < 0.1).astype(int)
    good = np.stack([softmax(3 * np.eye(2)[truth] + gaussian(100, 2, 1.0, seed)) for seed in range(8)])
    majority = np.tile([0.9, 0.1], (100, 1)) + 1e-3 * random.standard_normal((100, 2))
    found = judge_competence(majority, truth, "classification", calibration=good)
    assert found.value >= 0.85
    assert not found.is_competent


# Regression ----------------------------------------------------------------------------------------------------------


@cache
def friedman():
    inputs, target = make_friedman2(600, noise=50, random_state=9)
    answers = {}
    for name, model in {
        "ridge": make_pipeline(StandardScaler(), Ridge()),
        "neighbours": make_pipeline(StandardScaler(), KNeighborsRegressor(5)),
        "tree": DecisionTreeRegressor(random_state=0),
        "small tree": DecisionTreeRegressor(max_depth=3, random_state=0),
    }.items():
        answers[name] = model.fit(inputs[100:], target[100:]).predict(inputs[:NATURAL])[:, None]
    return answers, target[:NATURAL, None]


@pytest.mark.parametrize("name", ["ridge", "neighbours", "tree", "small tree"])
def test_honest_regressors_are_competent_and_their_nonsense_is_not(name):
    answers, truth = friedman()
    calibration = np.stack([other for key, other in answers.items() if key != name])
    assert judge_competence(answers[name], truth, "regression", calibration=calibration).is_competent
    random = np.random.default_rng(0)
    for nonsense in (
        truth.mean() + truth.std() * random.standard_normal(truth.shape),
        np.full(truth.shape, np.median(truth)),
        np.zeros(truth.shape),
        100 * answers[name],
        -answers[name],
        answers[name][::-1],
    ):
        assert not judge_competence(nonsense, truth, "regression", calibration=calibration).is_competent


@pytest.mark.parametrize("drawn", range(6))
def test_weak_honest_regressors_are_competent_by_a_couple_of_dozen_queries_and_noise_is_not(drawn):
    """Disease progression, of which models explain less than half."""
    data = load_diabetes()
    order = np.random.default_rng(drawn).permutation(len(data.target))
    inputs, target = data.data[order], data.target[order]
    honest = []
    for seed in range(16):
        rows = np.random.default_rng(seed).choice(np.arange(25, 442), 150, replace=False)
        model = Ridge(alpha=0.1) if seed % 2 else DecisionTreeRegressor(max_depth=3, random_state=seed)
        honest.append(model.fit(inputs[rows], target[rows]).predict(inputs[:25])[:, None])
    truth, random = target[:25, None], np.random.default_rng(100 + drawn)

    def competent(answers, among):
        return judge_competence(answers, truth, "regression", calibration=np.array(among)).is_competent

    assert sum(competent(one, [other for other in honest if other is not one]) for one in honest) >= 15
    noise = [random.choice(target, 25)[:, None].astype(float) for _ in range(16)]
    assert sum(competent(one, honest) for one in noise) <= 4


@given(st.integers(2, 40), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_evidence_of_a_regression_is_spearmans_rank_correlation(queries, outputs, seed):
    random = np.random.default_rng(seed)
    answers, truth = random.integers(0, 9, (2, queries, outputs)).astype(float)
    found = rank_correlations(np.stack([answers, -answers]), truth)
    moving = [np.ptp(a) > 0 and np.ptp(t) > 0 for a, t in zip(answers.T, truth.T, strict=True)]
    wanted = [spearmanr(a, t)[0] if m else 0.0 for a, t, m in zip(answers.T, truth.T, moving, strict=True)]
    np.testing.assert_allclose(found, [np.mean(wanted), -np.mean(wanted)], atol=1e-12)


def test_regression_skill_is_one_for_the_truth_and_zero_for_its_median_with_any_unit():
    _, truth = friedman()
    for unit in (1.0, -20.0, 1e6):
        assert measure_competence(unit * truth, unit * truth, "regression")[1] == pytest.approx(1)
        median = np.full(truth.shape, np.median(unit * truth))
        assert measure_competence(median, unit * truth, "regression")[1] == pytest.approx(0, abs=1e-9)


def test_a_truth_that_is_mostly_zero_still_tells():
    truth = np.where(np.arange(50) % 5 == 0, np.arange(50.0), 0.0)[:, None]
    assert measure_competence(truth, truth, "regression")[1] == pytest.approx(1)
    assert measure_competence(np.zeros_like(truth), truth, "regression")[1] < 0.6


# The rule ------------------------------------------------------------------------------------------------------------


@given(skills=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=100))
@settings(max_examples=100, deadline=None)
def test_no_calibration_model_but_the_worst_few_falls_below_the_line(skills):
    line = required_skill(np.array(skills))
    assert (np.array(skills) < line).sum() <= 0.05 * len(skills)
    assert line <= max(skills) / 2


def test_one_failed_calibration_model_among_many_does_not_move_the_line():
    strong = np.linspace(0.9, 1.0, 40)
    assert required_skill(np.append(strong, 0.0)) == pytest.approx(required_skill(strong), abs=0.05)


# Several places ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["multi-label", "segmentation"])
def test_skill_of_several_places_is_cohens_kappa_of_each_label_or_of_all_pixels(kind):
    random = np.random.default_rng(0)
    outputs = 2 if kind == "multi-label" else 3
    truth = random.integers(0, outputs, (50, 4))
    truth[:, 3] = 0  # tells nothing as a label, is a pixel like any other
    answers = gaussian(50, 4 * outputs, 1.0, seed=1) + 1.5 * np.eye(outputs)[truth].reshape(50, -1)
    value, skill = measure_competence(answers, truth, kind)
    found = answers.reshape(50, 4, outputs).argmax(axis=2)
    assert value == pytest.approx((found == truth).mean())
    if kind == "multi-label":
        wanted = np.mean([cohen_kappa_score(truth[:, label], found[:, label]) for label in range(3)])
    else:
        wanted = cohen_kappa_score(truth.ravel(), found.ravel())
    assert skill == pytest.approx(wanted)
    values, skills = measure_competence(np.stack([answers, -answers]), truth, kind)
    assert (values[0], skills[0]) == pytest.approx((float(value), float(skill)))
    perfect = np.eye(outputs)[truth].reshape(50, -1)
    assert measure_competence(perfect, truth, kind)[1] == 1.0


@pytest.mark.parametrize("kind", ["multi-label", "segmentation"])
def test_noise_at_several_places_is_not_competent(kind):
    outputs = 2 if kind == "multi-label" else 3
    truth = np.random.default_rng(0).integers(0, outputs, (40, 5))
    right = np.eye(outputs)[truth].reshape(40, -1)
    calibration = np.stack([right + gaussian(40, 5 * outputs, 0.7, seed=seed) for seed in range(20)])
    assert judge_competence(calibration[0], truth, kind, calibration=calibration).is_competent
    assert not judge_competence(
        gaussian(40, 5 * outputs, 1.0, seed=99), truth, kind, calibration=calibration
    ).is_competent
    assert not judge_competence(np.roll(right, 1, axis=0), truth, kind, calibration=calibration).is_competent


def test_generators_have_no_true_answers():
    assert measure_competence(np.zeros((3, 4)), np.zeros(3), "generation") is None
    assert judge_competence(np.zeros((3, 4)), np.zeros(3), "generation", calibration=np.zeros((2, 3, 4))) is None


def test_a_competence_prints_in_one_line_and_as_json():
    found = judged(digits()[0]["bayes"])
    assert str(found).startswith("accuracy 0.")
    assert "7 calibration models" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["is_competent"] is True
    assert str(judged(gaussian(NATURAL, 10, 1.0))).endswith("it does not do this task")


def test_answers_that_do_not_fit_the_truth_are_refused():
    with pytest.raises(InputError, match="one row per true one"):
        measure_competence(np.zeros((3, 4)), np.zeros(5, int), "classification")
    with pytest.raises(InputError, match="true classes"):
        measure_competence(np.zeros((3, 4)), np.array([0, 1, 4]), "classification")
