"""ROC, AUC, robustness, uniqueness, ARUC: against scikit-learn, definitions and a fine grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from metav.errors import InputError
from metav.statistics.roc_aruc import aruc, robustness_uniqueness, roc_auc, roc_curve

# few different values, so that ties are common
scores = st.lists(
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.500001, 0.75, 1.0]) | st.floats(0, 1), min_size=1, max_size=30
)


def labelled(positives, negatives):
    return np.r_[np.ones(len(positives)), np.zeros(len(negatives))], np.r_[positives, negatives]


@given(scores, scores)
def test_the_auc_is_that_of_scikit_learn(positives, negatives):
    assert roc_auc(positives, negatives) == pytest.approx(roc_auc_score(*labelled(positives, negatives)), abs=1e-12)


@given(scores, scores)
def test_the_auc_of_swapped_classes_is_the_rest(positives, negatives):
    assert roc_auc(positives, negatives) + roc_auc(negatives, positives) == pytest.approx(1.0)


@given(scores, scores)
def test_the_roc_curve_is_that_of_scikit_learn(positives, negatives):
    fpr, tpr = roc_curve(positives, negatives)
    expected_fpr, expected_tpr, _ = sklearn_roc_curve(*labelled(positives, negatives), drop_intermediate=False)
    assert fpr == pytest.approx(expected_fpr)
    assert tpr == pytest.approx(expected_tpr)


@given(scores, scores)
def test_the_area_under_the_curve_is_the_auc(positives, negatives):
    fpr, tpr = roc_curve(positives, negatives)
    assert np.trapezoid(tpr, fpr) == pytest.approx(roc_auc(positives, negatives))
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


@given(scores, scores, st.lists(st.floats(0, 1), max_size=5))
def test_robustness_and_uniqueness_are_shares(positives, negatives, thresholds):
    thresholds = [*thresholds, *positives, *negatives]
    robustness, uniqueness = robustness_uniqueness(positives, negatives, thresholds)
    for threshold, robust, unique in zip(thresholds, robustness, uniqueness, strict=True):
        assert robust == pytest.approx(np.mean([score >= threshold for score in positives]))
        assert unique == pytest.approx(np.mean([score < threshold for score in negatives]))


@given(scores, scores)
def test_aruc_is_the_integral_over_a_fine_grid(positives, negatives):
    grid = (np.arange(20_000) + 0.5) / 20_000
    robustness = np.mean(np.array(positives)[:, None] >= grid, axis=0)
    uniqueness = np.mean(np.array(negatives)[:, None] < grid, axis=0)
    assert aruc(positives, negatives) == pytest.approx(np.minimum(robustness, uniqueness).mean(), abs=2e-3)


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [([1.0], [0.0], 1.0), ([0.75], [0.25], 0.5), ([0.0], [1.0], 0.0), ([0.5], [0.5], 0.0), ([1.0, 0.5], [0.0], 0.75)],
)
def test_aruc_by_hand(positives, negatives, expected):
    assert aruc(positives, negatives) == pytest.approx(expected)


@pytest.mark.parametrize("curve", [roc_auc, roc_curve, aruc])
@pytest.mark.parametrize(
    ("positives", "negatives", "message"),
    [
        ([], [0.5], "at least one positive and one negative score, got none"),
        ([0.5], [], "at least one positive and one negative score, got none"),
        ([np.nan], [0.5], "scores must be finite"),
        ([0.5], [np.inf], "scores must be finite"),
    ],
)
def test_scores_without_a_curve_are_refused(curve, positives, negatives, message):
    with pytest.raises(InputError, match=message):
        curve(positives, negatives)


@pytest.mark.parametrize(("positives", "negatives"), [([1.5], [0.5]), ([0.5], [-0.1])])
def test_aruc_of_logits_is_refused(positives, negatives):
    with pytest.raises(InputError, match=r"must be scores in \[0, 1\], got values from"):
        aruc(positives, negatives)
