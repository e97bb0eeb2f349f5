"""Evaluation: rates, curves and families against scikit-learn, SciPy and plain counting."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from small_fingerprints import (
    OUTPUTS,
    answers_with_logit,
    handmade,
    handmade_between,
    small_fingerprint,
    small_owner,
    small_suspects,
)
from torch import nn

import metav
from metav import Decision
from metav.errors import InputError

FP = handmade()
THRESHOLD = FP.calibration.threshold


def suspect(logit: float) -> np.ndarray:
    return answers_with_logit(FP, logit)


BROKEN = np.full((6, OUTPUTS), np.nan)
SUSPECTS = [
    (suspect(2.0), True, "finetune"),
    (suspect(-1.0), True, "finetune"),
    (BROKEN, True, "finetune"),
    (suspect(3.0), True, "prune"),
    (suspect(-2.0), False, "fresh"),
    (suspect(-3.0), False, "fresh"),
    (suspect(0.75), False, "fresh"),
    (BROKEN, False, "broken"),
]


def interval_of(count: int, total: int) -> tuple[float, float]:
    found = binomtest(count, total).proportion_ci(method="exact")
    return found.low, found.high


def test_rates_are_shares_of_the_suspects_judged():
    found = metav.evaluate(FP, SUSPECTS)
    for interval, count, total in ((found.tpr, 2, 3), (found.fpr, 1, 3), (found.tnr, 2, 3)):
        assert (interval.count, interval.total) == (count, total)
        assert (interval.low, interval.high) == pytest.approx(interval_of(count, total))
    assert found.inconclusive == 2
    assert [result.decision for result in found.results].count(Decision.INCONCLUSIVE) == 2


def test_families_are_counted_apart_in_their_order():
    families = metav.evaluate(FP, SUSPECTS).by_family
    assert list(families) == ["finetune", "prune", "fresh", "broken"]
    scores = [float(FP.scores(suspect(logit)[None])[0]) for logit in (2.0, -1.0)]
    first = families["finetune"]
    assert (first.is_positive, first.n, first.inconclusive, first.rate.count) == (True, 2, 1, 1)
    assert first.mean_score == pytest.approx(np.mean(scores))
    assert (first.lowest_score, first.highest_score) == (min(scores), max(scores))
    assert (families["fresh"].is_positive, families["fresh"].n, families["fresh"].rate.count) == (False, 3, 2)
    assert (families["broken"].n, families["broken"].inconclusive, families["broken"].rate.total) == (0, 1, 0)
    assert math.isnan(families["broken"].mean_score)


@settings(max_examples=20, deadline=None)
@given(
    positives=st.lists(st.sampled_from([-2.0, 0.25, 1.0, 2.0, 3.0]), min_size=1, max_size=6),
    negatives=st.lists(st.sampled_from([-9.0, 0.25, 0.5, 1.0, 2.5]), min_size=1, max_size=6),
)
def test_curves_are_those_of_the_suspects(positives, negatives):
    entries = [(suspect(logit), True, "p") for logit in positives]
    entries += [(suspect(logit), False, "n") for logit in negatives]
    found = metav.evaluate(FP, entries)
    labels = [is_positive for _, is_positive, _ in entries]
    logits = [float(FP.logits(answers[None])[0]) for answers, _, _ in entries]
    scores = np.array([float(FP.scores(answers[None])[0]) for answers, _, _ in entries])
    assert found.auc == pytest.approx(roc_auc_score(labels, logits))
    grid = (np.arange(5000) + 0.5) / 5000
    robust = (scores[: len(positives), None] >= grid).mean(axis=0)
    unique = (scores[len(positives) :, None] < grid).mean(axis=0)
    assert found.aruc == pytest.approx(np.minimum(robust, unique).mean(), abs=2e-3)
    assert found.tpr.count == sum(logit >= THRESHOLD for logit in logits[: len(positives)])
    assert found.fpr.count == sum(logit >= THRESHOLD for logit in logits[len(positives) :])


def test_saturated_scores_still_rank():
    """Two calibration models without any spread make a steep rule: all scores are 1.0, and logits differ."""
    steep = handmade_between(suspect(-1.0), suspect(3.0))
    logits = {2.5: "near", 2.75: "near", 2.875: "far", 3.0: "far"}
    entries = [(suspect(logit), family == "far", family) for logit, family in logits.items()]
    found = metav.evaluate(steep, entries)
    assert {result.score for result in found.results} == {1.0}
    assert found.auc == 1.0


def test_each_result_is_the_verdict_of_its_suspect():
    found = metav.evaluate(FP, SUSPECTS)
    for result, (answers, is_positive, family) in zip(found.results, SUSPECTS, strict=True):
        verdict = metav.verify(FP, answers)
        assert (result.family, result.is_positive) == (family, is_positive)
        assert (result.decision, result.score, result.p_value, result.logit, result.reason) == (
            verdict.decision,
            verdict.score,
            verdict.p_value,
            verdict.logit,
            verdict.reason,
        )


def test_each_suspect_is_asked_once():
    calls = []

    def counted(queries):
        calls.append(len(queries))
        return suspect(2.0) if len(queries) == 6 else suspect(2.0)[: len(queries)]

    metav.evaluate(FP, [(counted, True, "p"), (suspect(-2.0), False, "n")])
    assert calls == [6, 6]  # all queries, and the few that are asked twice


def test_a_generator_is_read_one_suspect_at_a_time():
    alive = []

    def suspects():
        for answers, is_positive, family in SUSPECTS:
            alive.append(family)
            yield (lambda queries, answers=answers: answers[: len(queries)]), is_positive, family
            assert alive[-1] == family

    assert metav.evaluate(FP, suspects()).tpr == metav.evaluate(FP, SUSPECTS).tpr


def test_where_a_class_was_never_judged_its_rates_are_unknown():
    found = metav.evaluate(FP, [(suspect(2.0), True, "p"), (BROKEN, False, "n")])
    assert (found.tnr.total, found.tnr.low, found.tnr.high) == (0, 0.0, 1.0)
    assert math.isnan(found.auc)
    assert math.isnan(found.aruc)
    assert json.loads(found.to_json())["auc"] is None
    assert "none of 0" in str(found)


@pytest.mark.parametrize("is_positive", [True, False])
def test_suspects_of_one_class_alone_are_counted(is_positive):
    """Whoever asks how many honest models are accused has no thieves at hand."""
    found = metav.evaluate(FP, [(suspect(logit), is_positive, "all") for logit in (2.0, -2.0, -3.0)])
    known, unknown = (found.tpr, found.fpr) if is_positive else (found.fpr, found.tpr)
    assert (known.count, known.total, unknown.total) == (1, 3, 0)
    assert math.isnan(found.auc)
    assert "no AUC of one class alone" in str(found)


# What cannot be evaluated --------------------------------------------------------------------------------------------

GOOD = [(suspect(2.0), True, "p"), (suspect(-2.0), False, "n")]


@pytest.mark.parametrize(
    ("suspects", "message"),
    [
        ([], r"suspects are empty; give at least one \(model, is_positive, family\)"),
        (None, r"suspects must be a Zoo or an iterable of \(model, is_positive, family\), got NoneType"),
        ("zoo", "suspects must be a Zoo or an iterable"),
        ([*GOOD, 3], r"suspect number 2 is a int, expected \(model, is_positive, family\)"),
        ([*GOOD, (suspect(1.0), True)], "suspect number 2 is a tuple, expected"),
        ([*GOOD, (suspect(1.0), 1, "p")], "is_positive of suspect number 2 must be True or False, got 1"),
        ([*GOOD, (suspect(1.0), True, 7)], "family of suspect number 2 must be a non-empty text, got 7"),
        ([*GOOD, (suspect(1.0), True, "")], "family of suspect number 2 must be a non-empty text"),
        ([*GOOD, (suspect(1.0), True, "n")], "family 'n' has derived and independent suspects; give them two names"),
        ([*GOOD, (None, True, "p")], "suspect number 2 of family 'p': a suspect of type NoneType cannot be asked"),
    ],
)
@pytest.mark.parametrize("lazily", [False, True], ids=["list", "generator"])
def test_suspects_of_another_form_are_refused(suspects, message, lazily):
    if lazily and isinstance(suspects, list):
        suspects = iter(suspects)
    with pytest.raises(InputError, match=message):
        metav.evaluate(FP, suspects)


@pytest.mark.parametrize("entry", [(suspect(1.0), True), (suspect(1.0), None, "p"), (suspect(1.0), True, "n")])
def test_a_list_is_checked_whole_before_anybody_is_asked(entry):
    asked = []
    entries = [(lambda q: asked.append(q), True, "p"), GOOD[1], entry]
    with pytest.raises(InputError, match="suspect"):
        metav.evaluate(FP, entries)
    assert asked == []


# How it is told ------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_per_family_and_the_rates_below():
    text = str(metav.evaluate(FP, SUSPECTS))
    rows = text.splitlines()
    assert rows[0].split()[:3] == ["family", "kind", "right"]
    assert [row.split()[:3] for row in rows[1:5]] == [
        ["finetune", "derived", "1/2"],
        ["prune", "derived", "1/1"],
        ["fresh", "independent", "2/3"],
        ["broken", "independent", "0/0"],
    ]
    assert "true-positive rate 66.7% (2/3, 95 % interval 9.4% to 99.2%)" in text
    assert "6 queries, 2 inconclusive" in text


def test_a_notebook_shows_an_escaped_table():
    entries = [(answers, is_positive, f"<i>{family}") for answers, is_positive, family in SUSPECTS]
    found = metav.evaluate(FP, entries)._repr_html_()
    assert "<i>" not in found
    assert found.count("<tr>") == 5


def test_an_evaluation_is_plain_json():
    found = metav.evaluate(FP, SUSPECTS)
    content = json.loads(found.to_json())
    assert content == found.to_dict()
    assert content["commitment"] == FP.commitment
    assert content["by_family"]["fresh"]["rate"]["count"] == 2
    assert content["suspects"][2] == {
        "family": "finetune",
        "is_positive": True,
        "decision": "INCONCLUSIVE",
        "score": None,
        "p_value": None,
        "logit": None,
        "reason": "not_finite",
    }


@pytest.mark.parametrize(("progress", "shown"), [(None, False), (False, False), (True, True)])
@pytest.mark.parametrize("lazily", [False, True])
def test_progress_is_silent_off_a_terminal(progress, shown, lazily, capfd):
    metav.evaluate(FP, iter(GOOD) if lazily else GOOD, progress=progress)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert bool(captured.err) == shown


# Real models ---------------------------------------------------------------------------------------------------------


def test_a_zoo_of_suspects_is_told_apart(tmp_path):
    fp, suspects = small_fingerprint(), small_suspects()
    fp.save(tmp_path / "owner.metav")
    found = metav.evaluate(tmp_path / "owner.metav", suspects)
    assert len(found.results) == len(suspects)
    # no recipe was told, so that a score above the threshold is not enough
    undecided = [entry for entry in found.results if entry.decision == "INCONCLUSIVE"]
    assert {entry.reason for entry in undecided} <= {"recipe_not_told"}
    assert found.inconclusive == len(undecided) < 6
    assert found.auc > 0.8
    assert {name: family.is_positive for name, family in found.by_family.items()} == {
        entry.family: entry.is_positive for entry in suspects
    }
    assert found.to_dict() == metav.evaluate(fp, suspects).to_dict()


def test_models_of_another_task_are_left_out_of_the_rates():
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    entries = [(small_owner(), True, "owner"), (other, False, "other task"), *small_suspects().negatives]
    found = metav.evaluate(small_fingerprint(), entries)
    assert found.inconclusive == 1
    assert found.tnr.total == len(small_suspects().negatives)
    assert found.results[1].reason == "wrong_outputs"
