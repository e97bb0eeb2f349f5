"""Verdicts: the rule decides, what cannot be judged is inconclusive, and every verdict tells its error rates."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small_fingerprints import (
    OUTPUTS,
    QUERIES,
    answers_with_logit,
    handmade,
    handmade_between,
    handmade_of_version_1,
    linear_member,
    numbers,
    small_fingerprint,
    small_owner,
    small_task,
    state_of,
)
from torch import nn

import metav
from metav import Decision
from metav.errors import ArtefactError, InputError
from metav.fingerprints.fingerprint import Fingerprint, TaskSpecification
from metav.statistics.calibration_models import CalibrationModels
from metav.verifiers.meta_verifier import MetaVerifier

FP = handmade()


def recorded(logit: float) -> np.ndarray:
    return answers_with_logit(FP, logit)


# The rule ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(answers=arrays.arrays(np.float32, (QUERIES, OUTPUTS), elements=st.floats(-100, 100, width=32)))
def test_a_match_is_a_score_of_at_least_one_half(answers):
    verdict = metav.verify(FP, answers)
    if verdict.reason == "constant":
        return
    matched = verdict.score >= 0.5
    assert matched == (verdict.logit >= verdict.threshold)
    if verdict.decision is Decision.INCONCLUSIVE:
        assert verdict.reason in (("unlike_any",) if matched else ("access",))
    else:
        assert verdict.decision is (Decision.MATCH if matched else Decision.NO_MATCH)
        assert (verdict.reason, verdict.message) == (None, None)
    assert verdict.logit == float(FP.logits(answers[None])[0])
    assert verdict.noise is None
    if verdict.access == "all":
        assert verdict.score == float(FP.scores(answers[None])[0])
        negatives = FP.calibration.negatives
        assert verdict.p_value == (1 + sum(negatives >= verdict.logit)) / (len(negatives) + 1)


@settings(max_examples=60, deadline=None)
@given(answers=arrays.arrays(np.float32, (QUERIES, OUTPUTS)))
def test_whatever_is_answered_gives_a_verdict(answers):
    verdict = metav.verify(FP, answers)
    assert (verdict.decision is Decision.INCONCLUSIVE) == (verdict.reason is not None)
    if not np.isfinite(answers).all():
        assert verdict.reason == "not_finite"
    json.loads(verdict.to_json())
    str(verdict)


@pytest.mark.parametrize(
    "view", ["identity", "logprob", "relative", "tempered", "round(2)", "topk(2)", "label", "identity_round(1)"]
)
@settings(max_examples=25, deadline=None)
@given(answers=arrays.arrays(np.float32, (QUERIES, OUTPUTS), elements=st.floats(allow_nan=False, width=32)))
def test_no_view_fails_on_finite_answers(view, answers):
    verdict = metav.verify(handmade(view=view), answers)
    assert verdict.reason in (None, "constant", "not_finite", "unlike_any", "access")


@pytest.mark.parametrize(("distance", "decision"), [(1e-3, Decision.MATCH), (-1e-3, Decision.NO_MATCH)])
def test_the_threshold_decides(distance, decision):
    verdict = metav.verify(FP, recorded(FP.calibration.threshold + distance))
    assert verdict.decision is decision
    assert verdict.score == pytest.approx(0.5, abs=1e-2)


@pytest.mark.parametrize(("center", "decision"), [(0.0, Decision.NO_MATCH), (-(2.0**-51), Decision.MATCH)])
def test_a_logit_at_the_threshold_is_a_match_and_the_one_below_is_none(center, decision):
    """The only independent model answers as the suspect does, so that the threshold is the next number above its logit,
    1; the suspect's own logit comes from another half of the members as well, whose center moves it there."""
    halves = [linear_member(0, QUERIES, weight=0.5, center=shift, spread=1.0) for shift in (0.0, center)]
    members = MetaVerifier(tuple(dataclasses.replace(half, part=part) for part, half in enumerate(halves)))
    answers = numbers(QUERIES, OUTPUTS, seed=7)
    answers[0, 0] = 1.0
    verdict = metav.verify(handmade_between(answers, 2 * answers, meta_verifier=members), answers)
    assert verdict.threshold == np.nextafter(1.0, 2.0)
    assert verdict.decision is decision
    at = decision is Decision.MATCH
    assert verdict.logit == (verdict.threshold if at else 1.0)
    assert verdict.score == 0.5 if at else verdict.score < 0.5


def test_a_verdict_carries_what_it_rests_on():
    verdict = metav.verify(FP, recorded(3.0))
    assert verdict.threshold == FP.calibration.threshold
    assert verdict.target_fpr == FP.calibration.target_fpr
    assert verdict.fpr_interval == FP.calibration.false_positives
    assert verdict.tpr_interval == FP.calibration.true_positives
    assert verdict.queries == QUERIES
    assert verdict.commitment == FP.commitment
    assert verdict.suspect == "recorded answers"


def test_logits_and_probabilities_of_a_classifier_get_one_verdict():
    fp, logits = handmade(view="logprob"), numbers(QUERIES, OUTPUTS, seed=4)
    exponentials = np.exp(logits.astype(np.float64))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert metav.verify(fp, logits).logit == pytest.approx(metav.verify(fp, probabilities).logit, abs=1e-4)


def test_labels_alone_are_judged_like_their_one_hot_answers():
    fp, labels = handmade(view="label"), np.array([0, 2, 1, 1, 0, 2])
    assert metav.verify(fp, labels).logit == metav.verify(fp, np.eye(OUTPUTS)[labels]).logit
    assert metav.verify(fp, [1] * QUERIES).reason == "constant"


@pytest.mark.parametrize("view", ["logprob", "relative", "tempered", "label", "topk(2)"])
def test_class_numbers_are_accepted_from_every_classifier_and_judged_as_labels(view):
    fp, labels = handmade(view=view), np.array([0, 2, 1, 1, 0, 2])
    verdict = metav.verify(fp, labels)
    assert verdict.access == "labels"
    assert verdict.score is not None
    assert verdict.logit == metav.verify(fp, np.eye(OUTPUTS)[labels]).logit


def test_one_number_per_query_of_a_regression_is_no_label():
    assert metav.verify(FP, [0, 2, 1, 1, 0, 2]).reason == "wrong_outputs"


# What cannot be judged -----------------------------------------------------------------------------------------------


def failing(queries):
    raise ConnectionError("<b>no route</b>")


@pytest.mark.parametrize(
    ("suspect", "reason", "message"),
    [
        (failing, "failed", "ConnectionError: <b>no route</b>"),
        (lambda q: np.full((len(q), OUTPUTS), np.nan), "not_finite", "NaN or infinity"),
        (lambda q: numbers(len(q) + 1, OUTPUTS), "wrong_rows", "expected (6, ...)"),
        (lambda q: numbers(len(q), OUTPUTS + 1), "wrong_outputs", "expected 3"),
        (lambda q: ["x"] * len(q), "not_numeric", "expected real numbers"),
        (lambda q: [[1.0]] * (len(q) - 1) + [[1.0, 2.0]], "ragged", "no rectangular array"),
        (lambda q: np.tile([1.0, 2.0, 3.0], (len(q), 1)), "constant", "the same answer to every query"),
    ],
    ids=["failed", "not_finite", "wrong_rows", "wrong_outputs", "not_numeric", "ragged", "constant"],
)
def test_a_suspect_without_an_answer_is_inconclusive(suspect, reason, message):
    verdict = metav.verify(FP, suspect, accepts="numpy")
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reason == reason
    assert message in verdict.message
    assert (verdict.score, verdict.p_value, verdict.logit) == (None, None, None)
    assert str(verdict).startswith(f"INCONCLUSIVE: no decision ({reason}): ")
    assert "<b>" not in verdict._repr_html_()
    assert json.loads(verdict.to_json())["score"] is None


def test_answers_beyond_all_bounds_are_inconclusive():
    answers = numbers(QUERIES, OUTPUTS, seed=1) * np.float32(8e37)
    verdict = metav.verify(FP, answers)
    assert (verdict.decision, verdict.reason) == (Decision.INCONCLUSIVE, "not_finite")
    assert "so large that they have no finite score" in verdict.message
    with pytest.raises(InputError, match="so large that they have no finite score; check their unit"):
        FP.scores(answers[None])


class Noisy:
    """Answers of a wanted logit, with Gaussian noise of a standard deviation."""

    def __init__(self, logit: float, deviation: float) -> None:
        self.answers, self.deviation = recorded(logit), deviation
        self.random = np.random.default_rng(5)

    def __call__(self, queries):
        rows = [np.flatnonzero((FP.queries == query).all(axis=(1, 2)))[0] for query in queries]
        return self.answers[rows] + self.deviation * self.random.normal(size=(len(queries), OUTPUTS))


def test_a_match_unlike_every_calibration_model_is_inconclusive():
    verdict = metav.verify(FP, recorded(40.0))
    assert (verdict.decision, verdict.reason) == (Decision.INCONCLUSIVE, "unlike_any")
    assert verdict.novelty.is_novel
    assert verdict.novelty.distance > verdict.novelty.limit
    assert "like those of no calibration model" in verdict.message
    assert verdict.score > 0.5
    assert verdict.to_dict()["novelty"]["is_novel"] is True
    # as far away on the other side it is no match, and needs no likeness for that
    assert metav.verify(FP, recorded(-40.0)).decision is Decision.NO_MATCH


def test_the_calibration_models_are_like_themselves():
    models = FP.calibration_models
    for answers in models.responses[~models.free]:
        verdict = metav.verify(FP, answers)
        assert verdict.novelty.distance == pytest.approx(0.0, abs=1e-6)
        assert not verdict.novelty.is_novel


def test_no_match_says_nothing_where_derived_models_would_not_be_found_either():
    low, high = recorded(-1.0), recorded(2.0)
    blind, seeing = handmade_between(high, low), handmade_between(low, high)
    assert metav.verify(seeing, recorded(-2.0)).decision is Decision.NO_MATCH
    verdict = metav.verify(blind, np.round(recorded(-2.0), 1))
    assert (verdict.decision, verdict.reason) == (Decision.INCONCLUSIVE, "access")
    assert "0% of the derived calibration models would be found" in verdict.message
    assert "ask for all scores, unrounded" in verdict.message
    assert (verdict.competence, verdict.tpr_interval.count) == (None, 0)
    # where nothing is missing from the answers, the verdict tells its power and leaves the answers alone
    full = metav.verify(blind, recorded(-2.0) + np.float32(1e-5) * numbers(QUERIES, OUTPUTS, seed=9))
    assert (full.decision, full.access) == (Decision.NO_MATCH, "all")
    assert full.tpr_interval.count == 0


def test_a_fingerprint_of_version_1_gives_no_verdict_to_anybody():
    for suspect in (recorded(3.0), recorded(-3.0), failing):
        verdict = metav.verify(handmade_of_version_1(), suspect)
        assert (verdict.decision, verdict.reason) == (Decision.INCONCLUSIVE, "old_format")
        assert (verdict.form, verdict.access, verdict.competence, verdict.novelty) == (None, None, None, None)


def test_noise_that_could_flip_the_decision_is_inconclusive():
    verdict = metav.verify(FP, Noisy(FP.calibration.threshold + 0.01, 0.5), accepts="numpy")
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reason == "noisy"
    assert "average several answers" in verdict.message
    assert 0 < verdict.noise < 10
    assert verdict.score is not None


@pytest.mark.parametrize(("logit", "decision"), [(3.0, Decision.MATCH), (-40.0, Decision.NO_MATCH)])
def test_noise_far_from_the_threshold_is_reported_and_judged(logit, decision):
    verdict = metav.verify(FP, Noisy(logit, 0.05), accepts="numpy")
    assert verdict.decision is decision
    assert verdict.noise > 0


def test_rounding_is_no_noise():
    verdict = metav.verify(FP, Noisy(FP.calibration.threshold + 1e-6, 1e-7), accepts="numpy")
    assert verdict.decision is not Decision.INCONCLUSIVE


def test_the_same_noise_gives_the_same_verdict():
    first, second = (metav.verify(FP, Noisy(0.6, 0.3), accepts="numpy") for _ in range(2))
    assert first == second


def test_noise_on_probabilities_is_not_read_as_logits():
    """A classifier whose probabilities tremble in the fourth digit is judged, on both sides of the threshold."""
    fp, random = handmade(view="logprob"), np.random.default_rng(0)
    exact = np.exp(numbers(QUERIES, OUTPUTS, seed=4).astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    calm = metav.verify(fp, exact)

    def trembling(queries):
        rows = [np.flatnonzero((fp.queries == query).all(axis=(1, 2)))[0] for query in queries]
        answers = exact[rows] * (1 + 1e-4 * random.normal(size=(len(queries), OUTPUTS)))
        return answers / answers.sum(axis=1, keepdims=True)

    # a model whose logit lies just below sets the threshold
    below, above = (np.log(exact) + shift * np.eye(QUERIES, OUTPUTS) for shift in (-0.1, 0.3))
    bounded = handmade_between(below, above, view="logprob")
    assert calm.logit - 0.1 < bounded.calibration.threshold < calm.logit
    verdict = metav.verify(bounded, trembling, accepts="numpy")
    assert verdict.decision is Decision.MATCH
    assert verdict.noise > 1e-5


# How it is told ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logit", [3.0, -3.0])
def test_a_verdict_tells_the_error_rate_that_its_calibration_supports(logit):
    text = str(metav.verify(FP, recorded(logit)))
    assert "0 of 50 independent models matched in calibration: false-positive rate <= 7.1 %" in text
    assert "4 of 4 derived models matched in calibration: true-positive rate >= 39.8 %" in text
    assert "derived from the owner's model" in text
    assert "stolen" not in text.lower()
    assert "stole" not in metav.verify(FP, recorded(logit))._repr_html_().lower()
    assert text.startswith("MATCH: the suspect was derived" if logit > 0 else "NO_MATCH: no evidence that the suspect")


def test_a_verdict_is_plain_json():
    verdict = metav.verify(FP, recorded(3.0))
    found = json.loads(verdict.to_json())
    assert found == verdict.to_dict()
    assert set(found) == {field.name for field in dataclasses.fields(verdict)}
    assert found["decision"] == "MATCH"
    assert found["fpr_interval"]["high"] == pytest.approx(0.0711, abs=1e-4)


def test_infinite_noise_is_written_as_none():
    values = iter([1.0, 2.0])
    verdict = metav.verify(FP, lambda q: next(values) * np.ones((len(q), OUTPUTS)), accepts="numpy")
    assert verdict.noise == np.inf
    assert json.loads(verdict.to_json())["noise"] is None


def test_a_verdict_cannot_be_changed():
    verdict = metav.verify(FP, recorded(3.0))
    with pytest.raises(dataclasses.FrozenInstanceError, match="decision"):
        verdict.decision = Decision.NO_MATCH


def test_a_decision_is_its_name():
    assert [str(decision) for decision in Decision] == ["MATCH", "NO_MATCH", "INCONCLUSIVE"]
    assert Decision.MATCH == "MATCH"


# Real models ---------------------------------------------------------------------------------------------------------


def test_verifying_leaves_model_and_random_state_untouched():
    fp, model = small_fingerprint(), small_owner()
    model.train()
    model(torch.ones(2, 1, 8, 8)).sum().backward()
    before = state_of(model)
    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    try:
        metav.verify(fp, model)
        assert state_of(model) == before
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.array_equal(np.random.get_state()[1], states[1])
        assert random.getstate() == states[2]
    finally:
        model.eval()
        model.zero_grad(set_to_none=True)


def test_module_callable_and_recorded_answers_get_the_same_score(tmp_path):
    fp, model = small_fingerprint(), small_owner()
    model.eval()
    with torch.no_grad():
        answers = model(torch.from_numpy(fp.queries.copy())).numpy()
    np.save(tmp_path / "answers.npy", answers)
    fp.save(tmp_path / "owner.metav")
    suspects = [
        model,
        model.forward,
        lambda q: model(torch.as_tensor(q)).tolist(),
        answers,
        tmp_path / "answers.npy",
    ]
    verdicts = [metav.verify(tmp_path / "owner.metav", suspect) for suspect in suspects]
    assert len({verdict.score for verdict in verdicts}) == 1
    assert {verdict.decision for verdict in verdicts} == {Decision.MATCH}


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_the_batch_size_does_not_change_the_decision(batch_size):
    verdict = metav.verify(small_fingerprint(), small_owner(), batch_size=batch_size)
    assert verdict.decision is Decision.MATCH
    assert verdict.score == pytest.approx(metav.verify(small_fingerprint(), small_owner()).score, abs=1e-4)


def test_a_suspect_of_another_task_is_inconclusive():
    verdict = metav.verify(small_fingerprint(), nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    assert (verdict.decision, verdict.reason) == (Decision.INCONCLUSIVE, "wrong_outputs")
    verdict = metav.verify(small_fingerprint(), nn.Linear(5, 10))
    assert (verdict.decision, verdict.reason) == (Decision.INCONCLUSIVE, "failed")
    assert small_task().outputs == 10


def test_what_is_the_callers_fault_is_raised(tmp_path):
    with pytest.raises(InputError, match="suspect of type NoneType"):
        metav.verify(FP, None)
    with pytest.raises(InputError, match="batch_size must be"):
        metav.verify(FP, failing, batch_size=0)
    with pytest.raises(InputError, match="accepts must be"):
        metav.verify(FP, failing, accepts="jax")
    with pytest.raises(ArtefactError, match="there is no file"):
        metav.verify(tmp_path / "nowhere.metav", failing)
    with pytest.raises(InputError, match="path must be a text or a path, got Linear"):
        metav.verify(nn.Linear(2, 2), FP)


def test_a_specification_is_checked():
    with pytest.raises(InputError, match="needs name, view and metric_name as texts"):
        TaskSpecification(
            name=1, view="identity", input_shape=(), outputs=1, levels=None, metric_name="", higher_is_better=True
        )


@pytest.mark.parametrize("options", [{"repeats": "x"}, {"weights": 3}, {"hidden": -1}])
def test_a_file_whose_options_cannot_be_used_is_refused_where_they_are_needed(options):
    fp = small_fingerprint()
    answers = np.round(softmax(fp), 2)
    with pytest.raises(ArtefactError, match=r"options of the fingerprint cannot be used \(.*\); make it again"):
        metav.verify(dataclasses.replace(fp, options=fp.options | options), answers)
    assert metav.verify(dataclasses.replace(fp, options={}), answers).access == "rounded(2)"


def softmax(fp) -> np.ndarray:
    """What the small owner answers, as probabilities."""
    with torch.no_grad():
        return torch.softmax(small_owner()(torch.tensor(fp.queries)), dim=1).numpy()


def with_owner(logit: float, check: dict[str, Any]) -> Fingerprint:
    """A hand-made fingerprint that holds the owner's own answers, of this logit."""
    known = handmade().calibration_models
    models = CalibrationModels(
        responses=np.concatenate([answers_with_logit(handmade(), logit)[None], known.responses]),
        derived=np.append(False, known.derived),
        free=np.append(False, known.free),
        families=("owner", *known.families),
        parts=np.append(-1, known.parts),
        shares=("owner", *("calibrate",) * len(known.parts)),
    )
    return handmade(calibration_models=models, check={**handmade().check, **check})


@pytest.mark.parametrize(
    ("check", "place"),
    [
        ({"standing": {"recipe": "drawn"}}, 0.5),
        ({"standing": {"recipe": "drawn", "apart": False}}, 0.5),
        ({"standing": {"recipe": "drawn", "apart": True}}, 0.6),
        ({"standing": {"recipe": "drawn", "apart": True}, "outlyingness": 0.5}, 0.6),
        ({"standing": {"recipe": "drawn", "apart": False}, "outlyingness": 0.5}, 0.2),
        ({"standing": {"recipe": "drawn", "apart": False}, "outlyingness": 1.3}, 0.4),
        ({"standing": {"recipe": "drawn", "apart": False}, "outlyingness": 2.0}, 0.5),
        ({"standing": {"recipe": "drawn", "apart": False}, "outlyingness": float("nan")}, 0.5),
        ({"standing": {"recipe": "drawn", "apart": False}, "outlyingness": "0.5"}, 0.5),
    ],
)
def test_without_a_recipe_only_what_is_nearer_to_the_owner_than_kin_matches(check, place):
    fp = with_owner(4.0, check)
    threshold = fp.calibration.threshold
    line = threshold + place * (4.0 - threshold)
    for logit, decision, reason in (
        (4.0, Decision.MATCH, None),
        (line + 0.05, Decision.MATCH, None),
        (line - 0.05, Decision.INCONCLUSIVE, "recipe_not_told"),
        (threshold + 0.05, Decision.INCONCLUSIVE, "recipe_not_told"),
        (threshold - 0.05, Decision.NO_MATCH, None),
    ):
        verdict = metav.verify(fp, answers_with_logit(fp, logit))
        assert (verdict.decision, verdict.reason) == (decision, reason)
        assert (reason is None) or ("recipe=" in verdict.message and verdict.score >= 0.5)


@pytest.mark.parametrize("check", [{"standing": {"recipe": "told"}}, {"standing": {"recipe": "loop"}}, {}])
def test_with_a_recipe_the_threshold_alone_decides(check):
    fp = with_owner(4.0, check)
    verdict = metav.verify(fp, answers_with_logit(fp, fp.calibration.threshold + 0.05))
    assert verdict.decision == Decision.MATCH
