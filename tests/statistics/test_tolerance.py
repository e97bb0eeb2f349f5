"""Tolerance limits: against SciPy's noncentral t distribution, a closed form, and the promise itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, nct, norm

from metav.errors import InputError
from metav.statistics.tolerance import CONFIDENCE, tolerance_factor

COUNTS, SHARES = (2, 3, 5, 15, 17, 60, 400), (0.001, 0.01, 0.05, 0.3, 0.9)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("confidence", [0.5, CONFIDENCE])
def test_the_factor_is_a_quantile_of_the_noncentral_t_distribution(count, share, confidence):
    shift = norm.isf(share) * math.sqrt(count)
    expected = nct.ppf(confidence, count - 1, shift) / math.sqrt(count)
    assert tolerance_factor(count, share, confidence=confidence) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("count", "share", "factor"), [(10, 0.1, 2.355), (10, 0.01, 3.981), (30, 0.05, 2.220), (50, 0.01, 2.862)]
)
def test_the_factor_is_that_of_printed_tables(count, share, factor):
    """One-sided factors at 95 % confidence (Natrella, 1963, table A-7)."""
    assert tolerance_factor(count, share) == pytest.approx(factor, abs=1.5e-3)


@pytest.mark.parametrize("share", [0.01, 0.1])
@pytest.mark.parametrize("count", [4, 17])
def test_the_limit_holds_as_often_as_it_promises(count, share):
    """Samples of a normal population: the share above the limit is at most the wanted one in 95 % of them."""
    samples = np.random.default_rng(count).normal(size=(20_000, count))
    limits = samples.mean(axis=1) + tolerance_factor(count, share) * samples.std(axis=1, ddof=1)
    held = int((norm.sf(limits) <= share).sum())
    assert binomtest(held, len(samples), CONFIDENCE).pvalue > 1e-4


@given(
    count=st.integers(2, 500),
    more=st.integers(1, 500),
    share=st.floats(1e-4, 0.5),
    ratio=st.floats(0.1, 0.9),
)
def test_fewer_values_or_a_smaller_share_put_the_limit_higher(count, more, share, ratio):
    assert tolerance_factor(count, share) > tolerance_factor(count + more, share)
    assert tolerance_factor(count, ratio * share) > tolerance_factor(count, share)


def test_of_many_values_the_factor_is_the_quantile_itself():
    assert tolerance_factor(1_000_000, 0.01) == pytest.approx(norm.isf(0.01), abs=5e-3)


@pytest.mark.parametrize("count", [0, 1])
def test_one_value_has_no_limit(count):
    assert tolerance_factor(count, 0.01) == math.inf


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(InputError, match=r"share must lie in \(0, 1\), got"):
        tolerance_factor(10, share)
