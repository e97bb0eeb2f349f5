"""How far an owner's answers lie outside of those of independent models, and what a match takes for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metav.statistics.kin import (
    BEYOND_KIN,
    COMPONENTS,
    FEWEST,
    NEAR_KIN,
    NEARLY_THE_OWNER,
    kin_limit,
    kin_place,
    outlyingness,
)


def along_directions(seed: int, count: int = 30, features: int = 400, noise: float = 0.3):
    """Return models that differ in COMPONENTS directions above all, (count, features), and these, orthonormal."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.normal(size=(features, features)))[0][:, :COMPONENTS].T
    models = random.normal(size=(count, COMPONENTS)) @ (20.0 * directions) + noise * random.normal(
        size=(count, features)
    )
    return models, directions


def distance_from_span(model, others):
    """Return the same as the module's formula, from the singular vectors themselves."""
    middle = others.mean(axis=0)
    main = np.linalg.svd(others - middle, full_matrices=False)[2][:COMPONENTS]
    rest = model - middle
    return np.linalg.norm(rest - main.T @ (main @ rest))


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_distance_from_the_main_directions_in_the_usual_one(seed):
    models, _ = along_directions(seed)
    owner = models[0] + np.random.default_rng(seed + 100).normal(size=models.shape[1])
    usual = np.median([distance_from_span(row, np.delete(models, at, 0)) for at, row in enumerate(models)])
    assert outlyingness(owner, models) == pytest.approx(distance_from_span(owner, models) / usual, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100.0))
def test_it_does_not_depend_on_unit_place_and_axes(seed, scale):
    models, _ = along_directions(seed, count=12, features=40)
    owner = np.random.default_rng(seed).normal(size=40)
    turn = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(40, 40)))[0]
    turned = outlyingness(scale * owner @ turn + 7.0, scale * models @ turn + 7.0)
    assert turned == pytest.approx(outlyingness(owner, models), rel=1e-5)


def test_what_independent_models_differ_in_themselves_does_not_count():
    models, directions = along_directions(5)
    far_along = models.mean(axis=0) + 60.0 * directions[0] + 0.3 * np.random.default_rng(6).normal(size=models.shape[1])
    aside = np.linalg.qr(np.concatenate([directions, np.ones((1, models.shape[1]))]).T)[0][:, -1]
    assert outlyingness(far_along, models) < 1.3
    assert outlyingness(far_along + 20.0 * aside, models) > 2.5


def test_few_models_and_equal_ones_tell_nothing():
    models, _ = along_directions(7, count=FEWEST)
    assert outlyingness(models[0], models) is not None
    assert outlyingness(models[0], models[1:]) is None
    assert outlyingness(np.ones(5), np.zeros((20, 5))) is None


def test_the_place_grows_with_the_outlyingness_and_the_doubt():
    places = [kin_place(value, apart=False) for value in (0.0, 0.5, 1.1, 1.2, 1.4, 1.5, 3.0)]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (NEAR_KIN, BEYOND_KIN)
    assert places[3] == pytest.approx(0.3)
    assert kin_place(None, apart=False) == BEYOND_KIN
    assert kin_place(0.0, apart=True) == NEARLY_THE_OWNER


def test_the_limit_lies_between_threshold_and_owner():
    assert kin_limit(1.0, 3.0, 0.6) == pytest.approx(2.2)
    assert kin_limit(1.0, 0.5, 0.6) == 1.0  # an owner that does not match itself moves no threshold
