"""Corrections for many tests at once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metav.statistics.corrections import holm


def test_holm_gives_the_numbers_of_its_definition():
    # Holm (1979): 4 x 0.01, 3 x 0.02, 2 x 0.03, 1 x 0.04, none below the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.7, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6))
def test_holm_rejects_what_the_closed_test_of_bonferroni_rejects(values):
    """A test is rejected at a level by Holm where every intersection that holds it is rejected by Bonferroni."""
    adjusted = holm(values)
    for place in range(len(values)):
        closed = max(
            min(1.0, len(others) * min(values[other] for other in others))
            for size in range(1, len(values) + 1)
            for others in itertools.combinations(range(len(values)), size)
            if place in others
        )
        assert adjusted[place] == pytest.approx(closed)


def test_holm_holds_the_chance_of_any_false_rejection():
    random = np.random.default_rng(0)
    false = sum(min(holm(list(random.uniform(size=20)))) <= 0.05 for _ in range(2000))
    assert false / 2000 < 0.07
