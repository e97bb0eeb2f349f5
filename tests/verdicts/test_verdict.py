"""What a verdict says of itself: no truth value, and no contradiction without a word on it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from small_fingerprints import answers_with_logit, handmade

import metav
from metav import Decision, InputError
from metav.statistics.calibration import calibrate
from metav.statistics.intervals import exact_interval


def verdict_at(logit: float):
    return metav.verify(handmade(), answers_with_logit(handmade(), logit))


@pytest.mark.parametrize("logit", [-3.0, 2.0, np.inf])
def test_neither_a_verdict_nor_its_decision_is_true_or_false(logit):
    verdict = verdict_at(logit)
    with pytest.raises(InputError, match=r"a verdict is neither true nor false.* verdict\.decision == metav\.Decision"):
        print("accused" if verdict else "not accused")
    with pytest.raises(InputError, match=r"a decision is neither true nor false.* decision == metav\.Decision\.MATCH"):
        bool(verdict.decision)
    with pytest.raises(InputError, match="neither true nor false"):
        _ = not verdict
    assert (verdict.decision == Decision.MATCH) == (logit == 2.0)
    assert (verdict.decision == "MATCH") == (logit == 2.0)


@pytest.mark.parametrize("recipe", ["told", "drawn", None])
@pytest.mark.parametrize("logit", [-3.0, 2.0])
def test_a_match_says_where_the_recipe_was_not_told(recipe, logit):
    check = {**handmade().check, **({} if recipe is None else {"standing": {"recipe": recipe}})}
    fp = handmade(check=check)
    verdict = metav.verify(fp, answers_with_logit(fp, logit))
    assert verdict.recipe == recipe
    warned = "not told how the owner's model was trained" in str(verdict)
    assert warned is (recipe == "drawn" and verdict.decision == Decision.MATCH)


@pytest.mark.parametrize(
    ("independent", "target_fpr", "place", "note"),
    [
        # above every one of them, and below the limit of a normal population
        (22, 0.05, "between", "p is not above the wanted 5 %, and yet this is no match: p tells the rank among 22"),
        (22, 0.01, "above", "p is above the wanted 1 %, and yet this is a match: with 22 .* below 0.0435"),
        (22, 0.05, "above", None),
        (22, 0.05, "below", None),
        (22, 0.01, "between", None),
        (22, 0.05, "unscored", None),
    ],
)
def test_a_p_value_beside_the_other_decision_is_explained(independent, target_fpr, place, note):
    negatives = np.random.default_rng(0).normal(size=independent)
    made = calibrate([9.0, 10.0, 11.0], negatives, target_fpr=target_fpr)
    assert made.threshold > negatives.max() + 0.1
    verdict = verdict_at(0.0)
    logit = {"between": (negatives.max() + made.threshold) / 2, "above": made.threshold + 1, "below": -9.0}.get(place)
    decided = {"above": Decision.MATCH, "unscored": Decision.INCONCLUSIVE}.get(place, Decision.NO_MATCH)
    found = replace(
        verdict,
        decision=decided,
        score=None if logit is None else float(made.score(logit)),
        p_value=None if logit is None else made.p_value(logit),
        target_fpr=target_fpr,
        fpr_interval=made.false_positives,
    )
    for text in (str(found), found._repr_html_()):
        assert bool(re.search(note or "and yet", text)) == (note is not None)


@pytest.mark.parametrize(
    ("decision", "found", "total", "says"),
    [
        (Decision.NO_MATCH, 0, 5, True),
        (Decision.NO_MATCH, 29, 100, True),
        (Decision.NO_MATCH, 30, 100, False),
        (Decision.MATCH, 1, 9, False),
        (Decision.INCONCLUSIVE, 1, 9, False),
    ],
)
def test_no_match_by_a_fingerprint_that_misses_most_copies_says_so(decision, found, total, says):
    verdict = replace(verdict_at(-3.0), decision=decision, tpr_interval=exact_interval(found, total))
    for text in (str(verdict), verdict._repr_html_()):
        assert (f"of {total} derived models {found} matched in calibration; a fingerprint made" in text) == says
