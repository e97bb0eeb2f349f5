"""Threshold, score, p-value, intervals: against closed forms, brute force and the guarantee itself."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import beta, binom, binomtest, nct, norm
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from metav.errors import InputError
from metav.statistics.calibration import DEFAULT_FPR, Calibration, calibrate
from metav.statistics.intervals import exact_interval
from metav.statistics.p_values import conformal_p_value

logit_lists = st.lists(st.floats(-50, 50), min_size=1, max_size=40)
rates = st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9])


def rule(threshold=0.0, slope=1.0, negatives=(-1.0,), positives=(1.0,), target_fpr=0.05) -> Calibration:
    return Calibration(
        threshold=threshold,
        slope=slope,
        target_fpr=target_fpr,
        negatives=np.array(negatives),
        positives=np.array(positives),
    )


# Intervals -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_interval_is_that_of_clopper_and_pearson(case):
    count, total = case
    interval = exact_interval(count, total)
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    assert interval.low <= interval.value <= interval.high


@pytest.mark.parametrize(("total", "bound"), [(20, 0.168), (50, 0.071), (100, 0.036), (299, 0.012)])
def test_no_false_positive_of_n_bounds_the_rate(total, bound):
    assert exact_interval(0, total).high == pytest.approx(bound, abs=5e-4)


def test_the_bounds_are_where_the_binomial_tails_are_a_fortieth():
    interval = exact_interval(3, 17)
    assert interval.low == pytest.approx(brentq(lambda p: binom.sf(2, 17, p) - 0.025, 1e-9, 0.9), rel=1e-6)
    assert interval.high == pytest.approx(brentq(lambda p: binom.cdf(3, 17, p) - 0.025, 1e-9, 0.999), rel=1e-6)


def test_a_share_of_nothing_is_unknown():
    interval = exact_interval(0, 0)
    assert (interval.low, interval.high, str(interval)) == (0.0, 1.0, "none of 0")
    assert math.isnan(interval.value)


@pytest.mark.parametrize(("count", "total"), [(-1, 5), (6, 5), (1, 0)])
def test_impossible_counts_are_refused(count, total):
    with pytest.raises(InputError, match=f"count must lie between 0 and total, got count={count} and total={total}"):
        exact_interval(count, total)


def test_an_interval_is_told_in_words_and_numbers():
    interval = exact_interval(3, 4)
    assert str(interval) == "75.0% (3/4, 95 % interval 19.4% to 99.4%)"
    assert interval.to_dict() == {"value": 0.75, "count": 3, "total": 4, "low": interval.low, "high": interval.high}


# Threshold -----------------------------------------------------------------------------------------------------------


def may_pass(total: int, rate: float) -> int:
    """Most negatives at or above the threshold: those whose p-value (1 + passed) / (n + 1) stays within the rate."""
    allowed = [k for k in range(total + 1) if Fraction(1 + k, total + 1) <= Fraction(str(rate))]
    return max(allowed, default=-1)


@given(positives=logit_lists, negatives=logit_lists, rate=rates)
def test_never_more_negatives_pass_than_the_rank_allows(positives, negatives, rate):
    found = calibrate(positives, negatives, target_fpr=rate)
    assert found.false_positives.count <= max(0, may_pass(len(negatives), rate))
    assert found.false_positives.count == sum(value >= found.threshold for value in negatives)
    assert found.true_positives.count == sum(value >= found.threshold for value in positives)


@given(positives=logit_lists, negatives=logit_lists, rate=rates, logit=st.floats(-60, 60))
def test_a_match_has_a_p_value_within_the_rate_where_n_supports_it(positives, negatives, rate, logit):
    found = calibrate(positives, negatives, target_fpr=rate)
    if found.supports_target and logit >= found.threshold:
        assert Fraction(found.p_value(logit)).limit_denominator(1000) <= Fraction(str(rate))


def rank_limit(negatives, rate: float) -> float:
    """The largest negative that must not pass."""
    return np.sort(negatives)[len(negatives) - 1 - max(0, may_pass(len(negatives), rate))]


def normal_limit(negatives, rate: float) -> float:
    """The one-sided tolerance limit of a normal population, with 95 % confidence (Owen, 1968)."""
    count = len(negatives)
    factor = nct.ppf(0.95, count - 1, norm.ppf(1 - rate) * math.sqrt(count)) / math.sqrt(count)
    return float(np.mean(negatives) + factor * np.std(negatives, ddof=1))


@given(positives=logit_lists, others=logit_lists, negatives=logit_lists, rate=rates)
def test_derived_models_do_not_move_the_threshold(positives, others, negatives, rate):
    first, second = (calibrate(given, negatives, target_fpr=rate) for given in (positives, others))
    assert first.threshold == second.threshold
    assert first.false_positives == second.false_positives
    assert np.array_equal(first.negatives, second.negatives)


@given(negatives=st.lists(st.integers(-500, 500).map(lambda value: value / 10), min_size=2, max_size=40), rate=rates)
def test_the_threshold_is_the_higher_of_rank_and_tolerance_limit(negatives, rate):
    found = calibrate([1.0], negatives, target_fpr=rate).threshold
    by_rank, by_limit = rank_limit(negatives, rate), normal_limit(negatives, rate)
    assert found > by_rank
    assert found == pytest.approx(max(by_rank, by_limit), rel=1e-6, abs=1e-6)


@given(
    negatives=st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=20),
    others=st.lists(st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=20), max_size=3),
    shift=st.integers(-100, 100),
)
def test_further_groups_say_how_far_logits_spread_and_not_where_they_lie(negatives, others, shift):
    """Location from the calibration models, deviation pooled over the groups, each about its own mean."""
    found = calibrate([1.0], negatives, others=others, target_fpr=0.05).threshold
    groups = [np.array(negatives), *map(np.array, others)]
    degrees, count = sum(len(group) - 1 for group in groups), len(negatives)
    expected = rank_limit(negatives, 0.05)
    if degrees:
        deviation = math.sqrt(sum(((group - group.mean()) ** 2).sum() for group in groups) / degrees)
        factor = nct.ppf(0.95, degrees, norm.ppf(0.95) * math.sqrt(count)) / math.sqrt(count)
        expected = max(expected, np.mean(negatives) + factor * deviation)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    moved = [(np.array(group) + shift).tolist() for group in others]
    assert calibrate([1.0], negatives, others=moved, target_fpr=0.05).threshold == pytest.approx(found, abs=1e-9)


def test_more_models_that_spread_alike_lower_the_threshold():
    random = np.random.default_rng(0)
    few = random.normal(size=16)
    alone = calibrate([9.0], few).threshold
    assert few.max() < calibrate([9.0], few, others=[few + 3.0, few - 1.0]).threshold < alone


def test_with_further_groups_the_wanted_rate_is_kept():
    """Of 400 rules made of 16 + 20 + 7 models at most a twentieth lets more than a tenth of the population pass."""
    random, exceeding = np.random.default_rng(1), 0
    for _ in range(400):
        groups = [random.normal(shift, 2.0, size=size) for size, shift in ((16, 0.0), (20, -1.0), (7, 0.5))]
        threshold = calibrate([9.0], groups[0], others=groups[1:], target_fpr=0.1).threshold
        exceeding += int(norm.sf(threshold / 2.0) > 0.1)
    assert exceeding <= binom.ppf(0.999, 400, 0.05)


def test_one_negative_alone_bounds_the_threshold_by_itself():
    assert calibrate([5.0], [1.5]).threshold == np.nextafter(1.5, 2)


def test_negatives_that_vary_more_put_the_threshold_farther_from_them():
    tight, wide = np.linspace(-0.1, 0.1, 21), np.linspace(-1, 1, 21)
    assert calibrate([10.0], wide).threshold == pytest.approx(10 * calibrate([10.0], tight).threshold)
    assert calibrate([10.0], tight).threshold == pytest.approx(normal_limit(tight, DEFAULT_FPR))


def test_of_few_models_the_threshold_lies_far_above_them():
    """Three models say little: the limit lies 10.55 standard deviations above their mean (Owen, 1968)."""
    negatives = np.array([-4.0, -1.0, 0.0])
    found = calibrate([2.0, 5.0, 9.0], negatives).threshold
    assert (found - negatives.mean()) / negatives.std(ddof=1) == pytest.approx(10.553, abs=1e-3)


def test_derived_outliers_do_not_let_the_threshold_sink_into_the_independent_models():
    bulk = np.linspace(-3, -2, 90)
    found = calibrate(np.append(np.linspace(1.0, 2.0, 49), -2.5), bulk)
    assert found.threshold > -2.0
    assert found.false_positives.count == 0
    assert found.true_positives.count == 49


@given(positives=logit_lists, negatives=logit_lists, shift=st.integers(-8, 8), power=st.integers(-3, 3))
def test_the_decisions_do_not_depend_on_the_unit_of_the_logits(positives, negatives, shift, power):
    positives, negatives = (np.round(np.array(values), 1) for values in (positives, negatives))
    plain = calibrate(positives, negatives, target_fpr=0.2)
    moved = calibrate(2.0**power * positives + shift, 2.0**power * negatives + shift, target_fpr=0.2)
    assert moved.false_positives.count == plain.false_positives.count
    assert moved.true_positives.count == plain.true_positives.count


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.2, 4), (0.3, 3), (0.5, 1)])
def test_how_many_negatives_support_a_rate_is_counted_exactly(rate, needed):
    assert rule(negatives=np.zeros(needed), target_fpr=rate).supports_target
    assert needed == 1 or not rule(negatives=np.zeros(needed - 1), target_fpr=rate).supports_target


@pytest.mark.parametrize("draw", ["normal", "standard_exponential", "random"])
def test_the_guarantee_holds_for_independent_models(draw):
    """Exchangeable negatives of any law: a new one passes with a chance of at most the rate, here within a binomial
    bound."""
    random = np.random.default_rng(0)
    rate, trials, passed = 0.1, 2000, 0
    for _ in range(trials):
        *negatives, new = getattr(random, draw)(size=21)
        passed += int(new >= calibrate(random.normal(0.5, 1.0, size=5), negatives, target_fpr=rate).threshold)
    assert binomtest(passed, trials, rate, alternative="greater").pvalue > 1e-4
    assert passed > 0 or draw == "random"


# Score and p-value ---------------------------------------------------------------------------------------------------


@given(
    threshold=st.floats(-1e3, 1e3),
    slope=st.floats(1e-6, 1e3),
    logits=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20),
)
def test_a_score_of_one_half_is_the_threshold(threshold, slope, logits):
    found = rule(threshold=threshold, slope=slope)
    near = [threshold, np.nextafter(threshold, -np.inf), np.nextafter(threshold, np.inf), *logits]
    scores = found.score(near)
    assert ((scores >= 0.5) == (np.array(near) >= threshold)).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (np.diff(found.score(np.sort(near))) >= 0).all()


def test_the_score_is_the_logistic_of_the_distance():
    logits = np.linspace(-3, 3, 13).reshape(1, 13)
    assert rule(threshold=0.5, slope=2.0).score(logits) == pytest.approx(1 / (1 + np.exp(-2 * (logits - 0.5))))


@given(negatives=logit_lists, logit=st.floats(-60, 60))
def test_the_p_value_counts_the_negatives_that_score_as_high(negatives, logit):
    expected = (1 + sum(value >= logit for value in negatives)) / (len(negatives) + 1)
    assert conformal_p_value(logit, np.array(negatives)) == expected
    assert rule(negatives=negatives).p_value(logit) == expected
    assert 0 < expected <= 1


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2, 0.5])
def test_p_values_of_independent_models_are_not_too_small(rate):
    random = np.random.default_rng(1)
    trials = 3000
    small = sum(conformal_p_value(random.normal(), random.normal(size=19)) <= rate for _ in range(trials))
    assert binomtest(small, trials, rate, alternative="greater").pvalue > 1e-4


@given(positives=logit_lists, negatives=logit_lists)
def test_the_slope_is_finite_and_rises(positives, negatives):
    assert 0 < calibrate(positives, negatives).slope < math.inf


def test_the_slope_is_that_of_the_log_odds_between_two_gaussians():
    """Unit variances, means at +2 and -2: the log-odds rise by 4 a unit; scikit-learn's discriminant agrees."""
    random = np.random.default_rng(2)
    positives, negatives = random.normal(2, 1, 2000), random.normal(-2, 1, 2000)
    found = calibrate(positives, negatives)
    assert found.slope == pytest.approx(4.0, rel=0.1)
    discriminant = LinearDiscriminantAnalysis(priors=[0.5, 0.5])
    discriminant.fit(np.concatenate([positives, negatives])[:, None], [1] * 2000 + [0] * 2000)
    assert found.slope == pytest.approx(float(discriminant.coef_[0, 0]), rel=1e-2)


@pytest.mark.parametrize(
    ("positives", "negatives", "rate", "message"),
    [
        ([], [0.0], 0.05, "positives is empty: calibration needs at least one model of each class"),
        ([0.0], [], 0.05, "negatives is empty: calibration needs"),
        ([np.nan], [0.0], 0.05, "positives holds NaN or infinite logits; check the responses"),
        ([0.0], [np.inf], 0.05, "negatives holds NaN or infinite logits"),
        ([1.0], [0.0], 0.0, r"target_fpr must lie in \(0, 1\), got 0.0"),
        ([1.0], [0.0], 1.0, r"target_fpr must lie in \(0, 1\)"),
        ([1.0], [0.0], float("nan"), r"target_fpr must lie in \(0, 1\)"),
    ],
)
def test_logits_that_cannot_calibrate_are_refused(positives, negatives, rate, message):
    with pytest.raises(InputError, match=message):
        calibrate(positives, negatives, target_fpr=rate)
